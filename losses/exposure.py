"""How much each target of a causal LM weighs, by the tokens of its own document that it is predicted from."""

import torch
from torch import Tensor

BUCKETS = 32  # up to 2**32 times the threshold


def effective_context(documents: Tensor) -> Tensor:
    """(batch, length): how many tokens stand before each token in its own document.

    Args:
        documents: (batch, length) numbers of documents; a document is a run of equal ones.
    """
    at = torch.arange(documents.shape[1], device=documents.device).expand(documents.shape)
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents.diff(dim=1) != 0
    return at - at.where(begins, 0).cummax(1).values


def exposure_weights(
    context: Tensor, labelled: Tensor, threshold: int, extra: float, largest: float | None = None
) -> Tensor:
    """(batch, length) float32: 1 for each target, more for one of a long context, 0 where there is no target.

    The long targets of a row share `extra` times the number of targets in the row. Their contexts fall into
    buckets from `threshold` on, each twice as wide as the one before. Each bucket that isn't empty gets the
    same part, and each target in it the same part of that. So weights depend on their row alone: neither on
    the size of a batch or micro-batch, nor on the number of devices.

    Args:
        context: (batch, length) the effective context of each target.
        labelled: (batch, length) whether there is a target.
        threshold: targets with at least this many tokens before them are long; at least 1.
        extra: what the long targets share, as a part of the plain weight of all targets of the row.
        largest: the most that one target gets beside its plain weight. What is above it is given to no other.
    """
    long = labelled & (context >= threshold)
    buckets = _log2(context.where(long, threshold) // threshold)
    counts = context.new_zeros(len(context), BUCKETS).scatter_add(1, buckets, long.long())
    parts = (counts > 0).sum(1, keepdim=True)  # nonempty buckets
    shared = extra * labelled.sum(1, keepdim=True) / (parts * counts.gather(1, buckets)).clamp(min=1)
    if largest is not None:
        shared = shared.clamp(max=largest)
    return labelled.float() + shared.float() * long


def _log2(numbers: Tensor) -> Tensor:
    """The logarithm of positive integers to base 2, rounded down; exact below 2**53."""
    return torch.frexp(numbers.double()).exponent.long() - 1
