"""Cross-entropy whose backward writes into the logits: one buffer where stock code holds three."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cadenza.surgery.runtime import triton_runs, uncompiled

CHUNK = {"cpu": 2**18, "cuda": 2**26}  # elements at a time; on a CPU they fit its cache
FUSED_CHUNK = 2**29  # one kernel reads them and keeps nothing; below the limit of 32-bit indices


@uncompiled  # a graph may not change its inputs
def cross_entropy_(logits: Tensor, labels: Tensor, count: Any = None) -> Tensor:
    """The sum of the cross-entropies of `logits` (rows, vocabulary) and `labels` (rows,), over `count`.

    No label is ignored. Half-precision logits are computed in float32, as under autocast, and the result is
    float32. The backward multiplies by the upstream gradient, such as a loss scale, before it rounds to the
    dtype of `logits`. It writes into `logits`, unless the graph is retained, and so saves a second tensor.

    Args:
        count: the divisor, a number or a tensor; None: the number of rows, so that the result is their mean.
    """
    total: Any = _CrossEntropy.apply(logits, labels)
    if count is None:
        count = len(labels)
    return total / (count.to(total.device) if isinstance(count, Tensor) else count)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        statistics = _compiled(_statistics) if _fuses(logits) else _statistics
        found = [statistics(*chunk) for chunk in _chunks(logits, labels[:, None])]
        tops, totals, losses = (torch.cat(parts) for parts in zip(*found, strict=True))
        ctx.save_for_backward(logits, labels[:, None], tops, totals)
        return losses.sum()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        logits, *others = ctx.saved_tensors
        if torch.is_grad_enabled():  # with `create_graph`, the gradient has a gradient
            total = F.cross_entropy(_wide(logits), others[0][:, 0], reduction="sum")
            return *torch.autograd.grad(total, logits, *upstream, create_graph=True), None
        gradient = logits.clone() if _graph_is_kept() else logits.detach()
        write = _compiled(_write_fused) if _fuses(gradient) else _write
        for chunk in _chunks(gradient, *others):
            write(upstream[0], *chunk)
        return gradient, None


def _statistics(chunk: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The highest logit, the sum of the exponentials below it, and the loss, each (rows, 1)."""
    work = _wide(chunk)
    top = work.amax(1, keepdim=True)
    total = (work - top).exp_().sum(1, keepdim=True)
    return top, total, total.log() - (work.gather(1, target) - top)


def _write(upstream: Tensor, chunk: Tensor, target: Tensor, top: Tensor, total: Tensor) -> None:
    """Write the gradient of the logits `chunk` into it."""
    work = _wide(chunk)
    work.sub_(top).exp_().mul_(upstream / total)
    work.scatter_add_(1, target, -upstream.expand(target.shape))
    if work is not chunk:
        chunk.copy_(work)


def _write_fused(upstream: Tensor, chunk: Tensor, target: Tensor, top: Tensor, total: Tensor) -> None:
    """`_write` in a form that compiles to one kernel."""
    hit = torch.arange(chunk.shape[1], device=chunk.device) == target
    probability = (_wide(chunk) - top).exp() / total
    chunk.copy_((probability - hit.to(total.dtype)) * upstream)


def _fuses(logits: Tensor) -> bool:
    """Whether each pass over the logits becomes one kernel: on CUDA, where Triton is installed."""
    return triton_runs(logits.device.type)


@cache
def _compiled(function: Callable) -> Callable:
    return torch.compile(function, dynamic=True, fullgraph=True)


def _chunks(logits: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """`logits` and `others`, some rows at a time."""
    elements = FUSED_CHUNK if _fuses(logits) else CHUNK.get(logits.device.type, CHUNK["cpu"])
    rows = max(1, elements // logits.shape[1])
    return zip(*(tensor.split(rows) for tensor in (logits.detach(), *others)), strict=True)


def _wide(chunk: Tensor) -> Tensor:
    """`chunk` in float32; itself if it is in float32 or float64."""
    return chunk if chunk.dtype == torch.float64 else chunk.float()


def _graph_is_kept() -> bool:
    """Whether this backward was called with `retain_graph`, so that the next one needs the logits."""
    return torch._C._autograd._get_current_graph_task_keep_graph()
