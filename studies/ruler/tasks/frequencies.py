"""cwe and fwe: the most frequent words of a list, and of a text of made-up words."""

import math
import random
from collections.abc import Sequence

from cadenza.studies.ruler.tasks.example import Draw, Example

COMMON = 10  # words that are asked for in cwe
FULL = 4096  # tokens from which on words of cwe come as often as in the paper
ALPHA = 2.0  # of the zeta distribution of fwe
ZETA = math.pi**2 / 6  # zeta(ALPHA)
TELLS = 80  # words of fwe from which on the third and the fourth word differ in frequency
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def common_words(draw: Draw) -> Example:
    """cwe: ten words come more often than `size` others; a solved example with a short list comes before.

    Words come 30 times and 3 times, in the example 10 times and 3 times. Below 4,096 tokens they come 6 times
    and once, in the example 3 times and once.
    """
    long = draw.length >= FULL
    solved = _list(draw, 30 if long else 10, (10, 3) if long else (3, 1))
    asked = _list(draw, draw.size, (30, 3) if long else (6, 1))
    return Example(f"{solved.prompt} {_numbered(solved.expected)}\n{asked.prompt}", asked.expected)


def _list(draw: Draw, others: int, times: tuple[int, int]) -> Example:
    words = draw.material.words(draw.rng, COMMON + others)
    common = words[:COMMON]
    text = common * times[0] + words[COMMON:] * times[1]
    draw.rng.shuffle(text)
    return Example(
        "Below is a numbered list of words. Some of these words come more often than others. Memorize those "
        f"that come most often.\n{_numbered(text)}\nQuestion: What are the {COMMON} most common words in the "
        f"list above? Answer: The {COMMON} words that come most often in the list are:",
        tuple(common),
    )


def _numbered(words: Sequence[str]) -> str:
    return " ".join(f"{number}. {word}" for number, word in enumerate(words, 1))


def frequent_words(draw: Draw) -> Example:
    """fwe: made-up words whose frequency falls as rank^-2. Rank 1 is dots; ranks 2 to 4 are asked."""
    vocabulary = ["...", *_coded(draw.rng, max(8, draw.length // 50))]
    total = TELLS + draw.size
    counts = [int(total * rank**-ALPHA / ZETA) for rank in range(1, len(vocabulary) + 1)]
    text = [word for word, count in zip(vocabulary, counts, strict=True) for _ in range(count)]
    draw.rng.shuffle(text)
    return Example(
        "Read the following coded text and count how often each coded word comes. Find the three coded "
        f"words that come most often. {' '.join(text)}\nQuestion: What are the three most frequent words in "
        "the coded text above? Leave out the dots and explain nothing. Answer: By the coded text above, the "
        "three most frequent words are:",
        tuple(vocabulary[1:4]),
    )


def _coded(rng: random.Random, count: int) -> list[str]:
    words: dict[str, None] = {}
    while len(words) < count:
        words["".join(rng.choices(LETTERS, k=6))] = None
    return list(words)
