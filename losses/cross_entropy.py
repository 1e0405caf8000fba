"""Cross-entropy that overwrites the logits with their gradient: one buffer where stock code holds three."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cadenza.surgery.runtime import uncompiled

CHUNK = {"cpu": 2**18, "cuda": 2**27}  # elements at a time; on a CPU they fit its cache


@uncompiled  # a graph may not change its inputs
def cross_entropy_(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy of `logits` (rows, vocabulary) and `labels` (rows,), a 0-dim tensor.

    `logits` hold their gradient afterwards, so neither log-probabilities nor a second gradient take memory of
    (rows, vocabulary). No label is ignored. Half-precision logits are computed in float32, as under autocast;
    their gradient is rounded once.
    """
    return _CrossEntropy.apply(logits, labels)  # pyright: ignore[reportReturnType]


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        rows, vocabulary = logits.shape
        chunk_rows = max(1, CHUNK.get(logits.device.type, CHUNK["cpu"]) // vocabulary)
        gradient = logits.detach()
        parts = zip(gradient.split(chunk_rows), labels.split(chunk_rows), strict=True)
        ctx.save_for_backward(gradient)
        if not rows:
            return logits.new_full((), torch.nan)  # the mean of no rows, as in stock code
        return torch.cat([_chunk_(chunk, target, rows) for chunk, target in parts]).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,) = ctx.saved_tensors
        return gradient.mul_(*upstream), None


def _chunk_(logits: Tensor, labels: Tensor, rows: int) -> Tensor:
    """The losses (chunk,); `logits` (chunk, vocabulary) become the gradient of their sum / `rows`."""
    work = logits if logits.dtype == torch.float64 else logits.float()
    top = work.amax(1, keepdim=True)  # (chunk, 1), like `right` and `total`
    right = work.gather(1, labels[:, None])
    total = work.sub_(top).exp_().sum(1, keepdim=True)
    work.mul_(1 / (total * rows))
    work.scatter_add_(1, labels[:, None], torch.full_like(top, -1 / rows))
    if work.dtype != logits.dtype:
        logits.copy_(work)
    return (total.log() + top - right)[:, 0]
