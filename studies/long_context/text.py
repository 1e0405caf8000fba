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

WORDS = 32  # for keys and for values: few, so that a small model learns to copy them within minutes
MOST = 16  # pairs of a training document
TOKENS_A_PAIR, TOKENS_A_WORD = 3, 1.8  # of a small vocabulary, roughly; training documents needn't be exact


class Pairs(NamedTuple):
    """A document: its text, and where in it the values stand that can be known, as (start, end)."""

    text: str
    known: list[tuple[int, int]]


def words() -> list[str]:
    """The made-up words, always the same."""
    rng, found = random.Random(0), dict[str, None]()
    while len(found) < WORDS:
        found["".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(2))] = None
    return list(found)


def document(rng: random.Random, prose: Sequence[str], pairs: int, asked: int, filler: int) -> Pairs:
    """A document of `pairs` pairs in `filler` words of `prose`, with `asked` of them once more."""
    names = words()
    table = {key: rng.choice(names) for key in rng.sample(names, pairs)}
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
    pairs = _log_uniform(rng, 2, min(MOST, tokens // (3 * TOKENS_A_PAIR)))
    room = tokens - TOKENS_A_PAIR * 3 * pairs
    filler = round(room / TOKENS_A_WORD) if rng.random() < 0.5 else 0
    return document(rng, prose, pairs, 2 * pairs, filler).text


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
