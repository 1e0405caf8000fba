"""The tasks of the retrieval study: generators of prompts and of the strings that an answer must hold."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."


@dataclass(frozen=True)
class Example:
    """A prompt, the strings that its answer must hold, and the number of tokens to generate."""

    prompt: str
    expected: tuple[str, ...]
    answer_tokens: int = 32


Make = Callable[[random.Random, int], Example]  # the int is the size: lines, needles or words


def word(rng: random.Random) -> str:
    """A pronounceable made-up word."""
    return "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(4))


def number(rng: random.Random) -> str:
    """A number of seven digits."""
    return str(rng.randint(10**6, 10**7 - 1))


def key_value(rng: random.Random, size: int) -> Example:
    """The value of one key among `size` pairs."""
    table = {word(rng): number(rng) for _ in range(size)}
    key = rng.choice(list(table))
    lines = "\n".join(f"{k}: {v}" for k, v in table.items())
    return Example(
        f"Each line holds a key and its value.\n{lines}\nThe value of {key} is: {key}:", (table[key],)
    )


def _needle(key: str, value: str) -> str:
    return f"One of the special magic numbers for {key} is: {value}."


def _niah(lines: list[str], key: str, value: str) -> Example:
    start = "A special magic number is hidden in the following text. Memorize it."
    asked = f"What is the special magic number for {key} mentioned in the text?"
    last = f"{asked} The special magic number for {key} mentioned in the text is"
    return Example("\n".join([start, *lines, last]), (value,))


def niah_single(rng: random.Random, size: int) -> Example:
    """niah_single_1: one needle in `size` lines of repeated noise."""
    key, value = word(rng), number(rng)
    lines = [NOISE] * size
    lines.insert(rng.randint(0, size), _needle(key, value))
    return _niah(lines, key, value)


def niah_multikey(rng: random.Random, size: int) -> Example:
    """niah_multikey_2: one needle among `size` needles."""
    needles = [(word(rng), number(rng)) for _ in range(size)]
    return _niah([_needle(*needle) for needle in needles], *rng.choice(needles))


def niah_multikey_long(rng: random.Random, size: int) -> Example:
    """niah_multikey_3: like niah_multikey_2, with random identifiers as keys and values."""

    def identifier() -> str:
        return "-".join("".join(rng.choice("0123456789abcdef") for _ in range(n)) for n in (8, 4, 4, 12))

    needles = [(identifier(), identifier()) for _ in range(size)]
    example = _niah([_needle(*needle) for needle in needles], *rng.choice(needles))
    return Example(example.prompt, example.expected, answer_tokens=48)


def variable_tracking(rng: random.Random, size: int) -> Example:
    """vt: a value, and a chain of four assignments in noise; the answer is all names that hold the value."""
    value, chain = str(rng.randint(10_000, 99_999)), []
    while len(chain) < 5:
        name = "".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(5))
        chain += [name] if name not in chain else []
    steps = [f"VAR {chain[0]} = {value}", *(f"VAR {b} = VAR {a}" for a, b in pairwise(chain))]
    places = sorted(rng.choices(range(size + 1), k=len(steps)), reverse=True)
    lines = [NOISE] * size
    for place, step in zip(places, steps[::-1], strict=True):
        lines.insert(place, step)
    start = "Memorize and track the chain of variable assignments in the text."
    asked = f"Find all variables that are assigned the value {value} in the text above."
    return Example("\n".join([start, *lines, f"{asked} Answer: they are 5 variables:"]), tuple(chain))


def common_words(rng: random.Random, size: int) -> Example:
    """cwe: the ten words that come 30 times, among `size` words that come 3 times."""
    common = [word(rng) for _ in range(10)]
    words = common * 30 + [word(rng) for _ in range(size)] * 3
    return _words(rng, words, common, "What are the 10 most common words in the above list?")


def frequent_words(rng: random.Random, size: int) -> Example:
    """fwe: the three most frequent words; the frequency falls as rank^-2."""
    vocabulary = list(dict.fromkeys(word(rng) for _ in range(200)))
    counts = [max(1, round(size * 0.6 / rank**2)) for rank in range(1, len(vocabulary) + 1)]
    words = [w for w, count in zip(vocabulary, counts, strict=True) for _ in range(count)]
    asked = "What are the three most frequently appeared words in the above list?"
    return _words(rng, words, vocabulary[:3], asked)


def _words(rng: random.Random, words: list[str], expected: list[str], asked: str) -> Example:
    rng.shuffle(words)
    text = " ".join(f"{n}. {w}" for n, w in enumerate(words, 1))
    return Example(f"Memorize the words in this list.\n{text}\n{asked} Answer:", tuple(expected), 64)


TASKS: dict[str, Make] = {
    "key_value": key_value,
    "niah_single_1": niah_single,
    "niah_multikey_2": niah_multikey,
    "niah_multikey_3": niah_multikey_long,
    "vt": variable_tracking,
    "cwe": common_words,
    "fwe": frequent_words,
}


def fitted(task: str, length: int, tokenizer: Any, seed: int) -> Example:
    """The largest example whose prompt and answer fit in `length` tokens.

    Raises:
        ValueError: the smallest example doesn't fit.
    """

    def make(size: int) -> Example:
        return TASKS[task](random.Random(f"{task} {seed}"), size)

    def fits(size: int) -> bool:
        example = make(size)
        return len(tokenizer(example.prompt)["input_ids"]) + example.answer_tokens + 1 <= length

    if not fits(1):
        raise ValueError(f"{task} doesn't fit {length} tokens")
    low, high = 1, 2
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return make(low)
