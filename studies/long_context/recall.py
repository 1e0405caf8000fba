"""How often a model knows the value of a key that it has read before."""

import random
from collections.abc import Sequence
from typing import Any

import torch

from cadenza.studies.checks import StudyError
from cadenza.studies.long_context.text import KEYS, Pairs, document


def examples(tokenizer: Any, prose: Sequence[str], length: int, count: int) -> list[Pairs]:
    """`count` documents of at most `length` tokens behind the anchor, with as much prose as fits.

    Raises:
        StudyError: `length` is too short for the pairs alone.
    """
    return [_fitted(tokenizer, prose, length, f"recall {length} {index}") for index in range(count)]


def _fitted(tokenizer: Any, prose: Sequence[str], length: int, seed: str) -> Pairs:
    def made(filler: int) -> Pairs:
        return document(random.Random(seed), prose, KEYS, KEYS, filler)

    def fits(filler: int) -> bool:
        return len(tokenizer(made(filler).text, add_special_tokens=False)["input_ids"]) < length

    if not fits(0):
        raise StudyError(f"lengths: {KEYS} pairs don't fit {length} tokens; ask for longer documents")
    low, high = 0, length  # a word is a token at least
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return made(low)


@torch.inference_mode()
def accuracy(model: Any, tokenizer: Any, anchor: int, found: Sequence[Pairs]) -> float:
    """The share of the known values whose tokens all have the highest logit, given the tokens before."""
    right = 0
    for pairs in found:
        encoded = tokenizer(pairs.text, add_special_tokens=False, return_offsets_mapping=True)
        ids = torch.tensor([[anchor, *encoded["input_ids"]]], device=model.device)
        hit = (model(ids).logits[0, :-1].argmax(-1) == ids[0, 1:]).tolist()
        right += sum(_all(hit, encoded["offset_mapping"], *span) for span in pairs.known)
    return right / sum(len(pairs.known) for pairs in found)


def _all(hit: Sequence[bool], offsets: Sequence[tuple[int, int]], start: int, end: int) -> bool:
    return all(ok for ok, (left, right) in zip(hit, offsets, strict=True) if left < end and right > start)
