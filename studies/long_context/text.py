"""Prose that holds keys with their values, and asks for them at its end.

A document is "KEY VALUE." several times, each followed by a piece of prose, and then some of the same pairs
once more. Whoever reads a key for the second time can know its value. Words of keys and values are made up.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cadenza.data import python_docs

KEYS, VALUES = 8, 32  # few, so that a model of a million weights learns within minutes to look a key up
ASKED = 3  # times that a training document asks for each of its pairs
TOKENS_A_PAIR, TOKENS_A_WORD = 3, 1.8  # of a small vocabulary, roughly; training documents needn't be exact


class Pairs(NamedTuple):
    """A document: its text, and where in it the values stand that can be known, as (start, end)."""

    text: str
    known: list[tuple[int, int]]


def words() -> tuple[list[str], list[str]]:
    """The keys and the values, always the same; all are different."""
    rng, found = random.Random(0), dict[str, None]()
    while len(found) < KEYS + VALUES:
        found["".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(2))] = None
    return list(found)[:KEYS], list(found)[KEYS:]


def document(rng: random.Random, prose: Sequence[str], pairs: int, asked: int, filler: int) -> Pairs:
    """A document of `pairs` pairs in `filler` words of `prose`, with `asked` of them once more."""
    keys, values = words()
    table = {key: rng.choice(values) for key in rng.sample(keys, pairs)}
    start = rng.randrange(max(len(prose) - filler, 1))
    parts = []
    for index, (key, value) in enumerate(table.items()):
        left, right = (start + filler * end // pairs for end in (index, index + 1))
        parts += [f"{key} {value}.", *prose[left:right]]
    text, known = " ".join(parts), []
    for key in rng.choices(list(table), k=asked):
        text += f" {key} "
        known.append((len(text), len(text) + len(table[key])))
        text += f"{table[key]}."
    return Pairs(text, known)


def training_document(rng: random.Random, prose: Sequence[str], window: int) -> str:
    """A document of at most about `window` tokens: few pairs or many, every other time without prose."""
    tokens = _log_uniform(rng, 24, window)
    pairs = rng.randint(2, max(2, min(KEYS, tokens // (TOKENS_A_PAIR * (1 + ASKED)))))
    room = tokens - TOKENS_A_PAIR * (1 + ASKED) * pairs
    filler = round(room / TOKENS_A_WORD) if rng.random() < 0.5 else 0
    return document(rng, prose, pairs, ASKED * pairs, max(filler, 0)).text


def _log_uniform(rng: random.Random, low: int, high: int) -> int:
    return round(low * (max(high, low) / low) ** rng.random())


def prose() -> list[str]:
    """The words of `python_docs`, one document after another."""
    return " ".join(python_docs()).split()


def write(folder: Path, window: int, documents: int) -> Path:
    """The file with training documents for windows of `window` tokens, written if it isn't there."""
    path = folder / f"key_values_{window}_{documents}.jsonl"
    if not path.is_file():
        rng, found = random.Random(f"key values {window}"), prose()
        lines = (json.dumps({"text": training_document(rng, found, window)}) for _ in range(documents))
        folder.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".part").write_text("\n".join(lines) + "\n", encoding="utf-8")
        path.with_suffix(".part").rename(path)
    return path
