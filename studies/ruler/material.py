"""What examples are made of: prose, words from it, and questions."""

import random
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cadenza.data.text.config import TextConfig
from cadenza.data.text.finite import Finite
from cadenza.studies.checks import StudyError
from cadenza.studies.ruler.questions import Questions

WORD = re.compile(r"\b[a-z]{4,12}\b")
OFTEN = 3  # a word that comes less often may be a slip or a name
FEWEST = 1000  # words to choose from


@dataclass(frozen=True)
class Material:
    """The text of `texts` as words between spaces, and the questions of each task that has a file."""

    texts: tuple[str, ...]
    questions: dict[str, Questions] = field(default_factory=dict)

    @cached_property
    def _text(self) -> list[str]:
        return [word for text in self.texts for word in text.split()]

    @cached_property
    def vocabulary(self) -> list[str]:
        """The words of four to twelve small letters that come often, and made-up ones if they are few."""
        counts = Counter(word for text in self.texts for word in WORD.findall(text))
        often = sorted(word for word, times in counts.items() if times >= OFTEN)
        return _filled(often, FEWEST, random.Random(0))

    def prose(self, rng: random.Random, size: int) -> str:
        """`size` words in a row from anywhere; the text begins anew at its end."""
        start = rng.randrange(len(self._text))
        return " ".join(self._text[(start + step) % len(self._text)] for step in range(size))

    def words(self, rng: random.Random, count: int) -> list[str]:
        """Different words; beyond the vocabulary they are made up."""
        return _filled(rng.sample(self.vocabulary, min(count, len(self.vocabulary))), count, rng)


def _filled(words: list[str], count: int, rng: random.Random) -> list[str]:
    """`words`, and made-up ones up to `count` in all."""
    found = dict.fromkeys(words)
    while len(found) < count:
        found[made_up(rng)] = None
    return list(found)


def made_up(rng: random.Random) -> str:
    """A word of four syllables."""
    return "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(4))


def prose(source: str | list[str]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The texts of `source`, which is read like a recipe's `data.source`, and what they depend on.

    Raises:
        DataError: no such source, or no text in it.
    """
    found = Finite(source, TextConfig(source=source), "prose")
    texts = tuple(text for text in found if isinstance(text, str))
    if not any(len(text.split()) > 1 for text in texts):
        raise StudyError(f"prose: {source} has fewer than two words; name text")
    return texts, found.made_of()
