"""The paper's D (arXiv 2411.13476, equation 4) and its scores of the first key (equation 5), in a stream.

A batch has one text in each row, each with its positions shifted by another number. All sums are in float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cadenza.attention.modules import base_models
from cadenza.studies.rope_precision.row_blocks import read_by


@dataclass(frozen=True)
class Discrepancy:
    """What a shift changes, summed over layers and heads.

    Args:
        inside: (tokens,) for each key the sum over queries of |difference of probabilities|, divided by the
            number of queries that see the key. Their sum is D with the absolute value inside.
        outside: the same with the absolute value outside the sum over queries.
        scores: (tokens,) the sum over the first T queries of the difference of their scores with the first
            key, divided by T. Scores are scaled as the softmax gets them, before a softcap, and multiplied in
            float64 from query and key in the model's dtype.
    """

    inside: Tensor
    outside: Tensor
    scores: Tensor


class Sums:
    """Reads attention in blocks and keeps sums by column: the batch's first row against the others."""

    def __init__(self, shifts: int, length: int, device: torch.device) -> None:
        kind: Any = {"dtype": torch.float64, "device": device}
        self.inside, self.outside, self.scores = (torch.zeros(shifts, length, **kind) for _ in range(3))
        self.signed: Tensor | None = None  # (shifts, heads, tokens) of the current layer

    def block(self, start: int, query: Tensor, key: Tensor, scaling: float, probabilities: Tensor) -> None:
        """Add a block; see `Reader`."""
        _, heads, rows, stop = probabilities.shape
        if self.signed is None:
            self.signed = self.inside.new_zeros(len(self.inside), heads, self.inside.shape[1])
        first = probabilities[0].double()
        for shift, moved in enumerate(probabilities[1:]):
            difference = moved.double().sub_(first)
            self.signed[shift, :, :stop] += difference.sum(-2)
            self.inside[shift, :stop] += difference.abs_().sum((0, 1))
        scores = _of_first_key(query, key, scaling)
        self.scores[:, start : start + rows] += scores[1:] - scores[:1]

    def end_of_layer(self) -> None:
        """Take the absolute value of the sums over all rows of the layer."""
        if self.signed is not None:
            self.outside += self.signed.abs().sum(1)
        self.signed = None

    def found(self) -> list[Discrepancy]:
        """The result of each shift, on the CPU."""
        length = self.inside.shape[1]
        count = torch.arange(1, length + 1, dtype=torch.float64)
        inside, outside = (sums.cpu() / count.flip(0) for sums in (self.inside, self.outside))
        scores = self.scores.cpu().cumsum(1) / count
        return [Discrepancy(*each) for each in zip(inside, outside, scores, strict=True)]


def _of_first_key(query: Tensor, key: Tensor, scaling: float) -> Tensor:
    """(batch, rows) the scores with the first key, summed over heads."""
    first = key[:, :, :1].double().repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    return (query.double() @ first.transpose(-1, -2)).sum((1, 3)) * scaling


@torch.no_grad()
def discrepancies(model: Any, ids: Tensor, against: int, shifts: Sequence[int]) -> list[Discrepancy]:
    """What each of `shifts` changes against positions from `against`.

    Args:
        model: a causal model, loaded with `eager`, in eval mode.
        ids: (tokens,) the text.
    """
    device = next(model.parameters()).device
    starts = torch.tensor([against, *shifts], device=device)
    positions = starts[:, None] + torch.arange(len(ids), device=device)
    sums = Sums(len(shifts), len(ids), device)
    with read_by(sums, model):
        base_models(model)[0](
            input_ids=ids.to(device).expand(len(starts), -1), position_ids=positions, use_cache=False
        )
    return sums.found()
