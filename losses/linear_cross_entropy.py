"""An output layer and its cross-entropy in chunks of rows: all logits never exist at once.

The gradients of the hidden state and of the weight are made in the same pass, chunk by chunk. Stock code
holds the logits and their gradient, each (rows, words). This function holds those of one chunk. In return it
holds the gradient of the weight from the forward on.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cadenza.losses.chunk_pass import Chunked, ChunkPass
from cadenza.surgery.runtime import autocast_dtype, uncompiled


@dataclass(frozen=True)
class RowScores:
    """What metrics need of each row.

    Args:
        losses: (rows,) cross-entropies.
        hits: (rows,) bool, whether the word of the highest logit is the label; None: not asked for.
        labels: (rows,).
    """

    losses: Tensor
    hits: Tensor | None
    labels: Tensor


@uncompiled  # a graph can't hold a loop over a number of rows that changes
def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    *,
    how: Chunked,
    weights: Tensor | None = None,
    count: Any = None,
) -> tuple[Tensor, RowScores]:
    """The sum of the losses of rows over `count`, float32 at least, and the scores of the rows.

    Products are those of `F.linear`, under autocast too. Losses are computed in float32. The gradient of the
    weight is summed over chunks in float32. Products of float16 are computed in float32, which holds any
    loss scale.

    Args:
        hidden: (rows, width).
        weight, bias: (words, width) and (words,).
        labels: (rows,) each a word; none is ignored.
        weights: (rows,) a factor for each loss; None: 1. They don't change `count`.
        count: the divisor, a number or a tensor; None: the number of rows. The mean of no row is NaN.
    """
    divisor = len(labels) if count is None else count
    divisor = divisor.to(hidden.device) if isinstance(divisor, Tensor) else divisor
    wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    rates = torch.ones_like(labels, dtype=wide) if weights is None else weights.detach().to(wide)
    wants = torch.is_grad_enabled()
    found: Any = _LinearCrossEntropy.apply(hidden, weight, bias, labels, rates / divisor, how, wants)
    total, losses, hits = found
    if count is None and not len(labels):
        total = total + float("nan")
    return total, RowScores(losses, hits if how.hits else None, labels)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Any,
        labels: Tensor,
        rates: Tensor,
        how: Any,
        wants: bool,
    ) -> Any:
        wanted = tuple(wants and each for each in ctx.needs_input_grad[:3])
        dtype = _product_dtype(hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            run = ChunkPass(hidden, weight, bias, labels, rates, how, wanted, dtype)
            losses = run.losses
        ctx.how, ctx.dtype = how, dtype
        ctx.save_for_backward(hidden, weight, bias, labels, rates, *run.gradients)
        ctx.mark_non_differentiable(run.plain, run.hits)
        return (rates * losses).sum(), run.plain, run.hits

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        inputs, gradients = ctx.saved_tensors[:5], ctx.saved_tensors[5:]
        if torch.is_grad_enabled():  # with `create_graph`, the gradient has a gradient
            return _differentiable(ctx, inputs, upstream[0])
        keep = torch._C._autograd._get_current_graph_task_keep_graph()
        scaled = [
            None if g is None else (g * upstream[0] if keep else g.mul_(upstream[0])).to(x.dtype)
            for g, x in zip(gradients, inputs[:3], strict=True)
        ]
        return *scaled, None, None, None, None


def _product_dtype(hidden: Tensor) -> torch.dtype:
    dtype = autocast_dtype(hidden) or hidden.dtype
    return torch.float32 if dtype == torch.float16 else dtype


def _differentiable(ctx: Any, inputs: tuple, upstream: Tensor) -> Any:
    """The gradients as functions of the inputs, with all logits."""
    *parts, labels, rates = inputs
    x, w, b = (part if part is None else part.to(ctx.dtype) for part in parts)
    numbers = F.linear(x, w, b)[:, : ctx.how.words].to(rates.dtype)
    total = (rates * ctx.how.terms(numbers, labels)).sum()
    asked = [part for part, needed in zip(parts, ctx.needs_input_grad, strict=False) if needed]
    found = iter(torch.autograd.grad(total, asked, upstream, create_graph=True))
    return *(next(found) if needed else None for needed in ctx.needs_input_grad[:3]), None, None, None, None
