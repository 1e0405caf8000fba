"""An example of a task, what it is made from, and how an answer to it is scored."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from cadenza.studies.ruler.material import Material


class Exhausted(Exception):
    """There is no example of this size: the material is used up."""


@dataclass(frozen=True)
class Example:
    """A prompt, which ends with the beginning of the answer, and the strings that are expected behind it."""

    prompt: str
    expected: tuple[str, ...]


@dataclass(frozen=True)
class Draw:
    """What an example is made from.

    Args:
        rng: of this example alone.
        size: from 1: lines, needles, words or paragraphs.
        length: tokens of the prompt with its answer; some tasks have other parameters for short ones.
    """

    rng: random.Random
    size: int
    length: int
    material: Material


def all_of(answer: str, expected: tuple[str, ...]) -> float:
    """The fraction of `expected` that the answer holds; case doesn't matter."""
    return sum(each.lower() in answer.lower() for each in expected) / len(expected)


def any_of(answer: str, expected: tuple[str, ...]) -> float:
    """1 if the answer holds one of `expected`, which are ways to say the same; case doesn't matter."""
    return float(any(each.lower() in answer.lower() for each in expected))


@dataclass(frozen=True)
class Task:
    """How examples are made and scored, and how many tokens an answer gets."""

    make: Callable[[Draw], Example]
    answer_tokens: int
    score: Callable[[str, tuple[str, ...]], float] = all_of
