"""Measures of generated text: how likely it is to the unquantized model, how it repeats, where it ends."""

import copy
from collections.abc import Collection
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from cadenza.studies.ptq_sweep.measures.sampling import forward, read_prompts

MEASURES = ("nll", "distinct_2", "repeated_4", "length", "ended")


class Judge:
    """The unquantized model behind some prompts: (prompts, length) token ids."""

    def __init__(self, model: Any, prompts: Tensor) -> None:
        self.model, self.prompts = model, prompts.to(model.device)
        with torch.no_grad():
            self.cache, self.first = read_prompts(model, self.prompts)

    @torch.no_grad()
    def nats(self, texts: list[list[int]]) -> list[list[float]]:
        """-log p of each token of the texts, one behind each prompt, at temperature 1."""
        longest = max(map(len, texts))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in texts], device=self.prompts.device)
        logits = self.first[:, None]
        if longest > 1:
            mask = torch.ones(len(ids), self.prompts.shape[1] + longest - 1, device=ids.device).long()
            cache = copy.deepcopy(self.cache)  # the call adds to it
            more = forward(self.model, ids[:, :-1], mask, cache)
            logits = torch.cat([logits, more.float().to(logits.device)], 1)
        found = -logits.log_softmax(-1).gather(-1, ids.to(logits.device)[..., None])[..., 0]
        return [nats[: len(row)] for nats, row in zip(found.tolist(), texts, strict=True)]


def measures(ids: list[int], nats: list[float], length: int, ends: Collection[int]) -> dict[str, float]:
    """Of the first `length` tokens of a text that stops behind its end token.

    Returns:
        `nll`: nats a token under the unquantized model. `distinct_2`: see `distinct`. `repeated_4`: the share
        of 4-grams that were there before. `length`: tokens, the end token included. `ended`: 1 if it came.
    """
    ids, nats = ids[:length], nats[:length]
    return {
        "nll": fmean(nats),
        "distinct_2": distinct(ids, 2),
        "repeated_4": 1 - distinct(ids, 4),
        "length": float(len(ids)),
        "ended": float(ids[-1] in ends),
    }


def distinct(ids: list[int], n: int) -> float:
    """The number of different n-grams over that of all (distinct-n, Li et al., arXiv 1510.03055).

    Of a text shorter than n it is 1: nothing repeats.
    """
    grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0
