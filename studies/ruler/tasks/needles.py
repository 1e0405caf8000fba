"""Needles in a haystack: keys with values, of which some are asked for.

The haystack is prose, one repeated line of noise, or other needles. In prose each needle has a depth of its
own out of 40 equally spaced ones.
"""

import random
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from cadenza.studies.ruler.tasks.example import Draw, Example

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
DEPTHS = [round(100 * step / 39) for step in range(40)]  # percent
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
PROSE, LINES, NEEDLES = "prose", "lines", "needles"


@dataclass(frozen=True)
class Needles:
    """The parameters of a task.

    Args:
        haystack: `prose`, `lines` of noise, or other `needles`.
        long_keys: whether keys are identifiers of 36 characters, and not two words.
        long_values: whether values are such identifiers, and not numbers of seven digits.
        keys, values, asked: how many keys are hidden, values each of them has, and keys are asked for.
    """

    haystack: str = PROSE
    long_keys: bool = False
    long_values: bool = False
    keys: int = 1
    values: int = 1
    asked: int = 1

    def __call__(self, draw: Draw) -> Example:
        """An example whose haystack has `draw.size` words, lines or needles."""
        kind = "identifiers" if self.long_values else "numbers"
        hidden = self._hidden(draw)
        needles = [needle(key, value, kind) for key, values in hidden.items() for value in values]
        draw.rng.shuffle(needles)
        asked = draw.rng.sample(list(hidden), self.asked)
        expected = tuple(value for key in asked for value in hidden[key])
        return Example(prompt(self._context(draw, needles, kind), asked, len(expected), kind), expected)

    def _hidden(self, draw: Draw) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        while len(found) < self.keys:
            found[self._key(draw)] = [self._value(draw.rng) for _ in range(self.values)]
        return found

    def _key(self, draw: Draw) -> str:
        return identifier(draw.rng) if self.long_keys else "-".join(draw.material.words(draw.rng, 2))

    def _value(self, rng: random.Random) -> str:
        return identifier(rng) if self.long_values else number(rng)

    def _context(self, draw: Draw, needles: list[str], kind: str) -> str:
        if self.haystack == PROSE:
            return _in_prose(draw, needles)
        other: Callable[[], str] = (
            (lambda: NOISE)
            if self.haystack == LINES
            else (lambda: needle(self._key(draw), self._value(draw.rng), kind))
        )
        return _in_lines(draw.rng, [other() for _ in range(draw.size)], needles)


def number(rng: random.Random) -> str:
    """A number of seven digits."""
    return str(rng.randint(10**6, 10**7 - 1))


def identifier(rng: random.Random) -> str:
    """A random UUID."""
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def needle(key: str, value: str, kind: str) -> str:
    """The sentence that says a value of `key`."""
    return f"One of the special magic {kind} for {key} is: {value}."


def prompt(context: str, keys: list[str], values: int, kind: str) -> str:
    """The task, the context, the question after `keys`, and how the answer begins."""
    query = f"{', '.join(keys[:-1])}, and {keys[-1]}" if len(keys) > 1 else keys[0]
    if values > 1:
        start, asked, verb = f"Some special magic {kind} are", f"are all the special magic {kind}", "are"
    else:
        kind = kind.removesuffix("s")
        start, asked, verb = f"A special magic {kind} is", f"is the special magic {kind}", "is"
    return (
        f"{start} hidden in the following text. Memorize what is hidden. I will ask for it afterwards.\n"
        f"{context}\nWhat {asked} for {query} mentioned in the text? "
        f"The special magic {kind} for {query} mentioned in the text {verb}"
    )


def _in_prose(draw: Draw, needles: list[str]) -> str:
    sentences = SENTENCE_END.split(draw.material.prose(draw.rng, draw.size))
    depths = sorted(draw.rng.sample(DEPTHS, len(needles)), reverse=True)
    for depth, each in zip(depths, needles, strict=True):
        sentences.insert(len(sentences) * depth // 100, each)
    return " ".join(sentences)


def _in_lines(rng: random.Random, lines: list[str], needles: list[str]) -> str:
    for each in needles:
        lines.insert(rng.randint(0, len(lines)), each)
    return "\n".join(lines)
