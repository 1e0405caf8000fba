"""Facts about a running model: the dtype of autocast, what is compiled, the progress of training."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from composer.core import State, Time, TimeUnit
from torch import Tensor
from torch.utils._triton import has_triton

COMMON = ("cpu", "cuda")  # have autocast; before torch 2.12 a graph ends where one asks
F = TypeVar("F", bound=Callable[..., Any])


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype that autocast casts `x` to; None where autocast is off, and for what it never casts.

    It casts no float64, and nothing on a device without autocast, such as meta.
    """
    device = x.device.type
    if x.dtype == torch.float64 or not x.is_floating_point():
        return None
    if device not in COMMON and not torch.amp.is_autocast_available(device):
        return None
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def uncompiled(function: F) -> F:
    """Keep `function` out of compiled graphs: `torch.compiler.disable`, with the type of `function`."""
    return torch.compiler.disable(function)  # pyright: ignore[reportReturnType]


@torch.compiler.assume_constant_result  # a graph would end at `has_triton`
def triton_runs(device: str) -> bool:
    """Whether programs in Triton run on devices of this type."""
    return device == "cuda" and has_triton()


def transformed() -> bool:
    """Whether `torch.func` or forward-mode differentiation is at work; never in a compiled graph.

    Operators of ours know nothing of it: they would give a derivative of zero in silence.
    """
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0


def constant(size: int) -> int:
    """`size`; a graph in which it was a variable holds for this size alone."""
    return len((None,) * size)


def progress(state: State) -> float:
    """The share of training that is done, 0 to 1; a part of an epoch counts by its batches."""
    end, now = state.max_duration, state.timestamp
    if end is None:
        return 0.0
    if end.unit == TimeUnit.EPOCH and state.dataloader_len is not None:
        return (now.epoch.value + now.batch_in_epoch.value / int(state.dataloader_len)) / end.value
    return now.get(end.unit).value / end.value


def reached(state: State, time: Time) -> bool:
    """Whether training has reached `time`, counted from the start."""
    if time.unit == TimeUnit.DURATION:
        return progress(state) >= time.value
    return state.timestamp.get(time.unit) >= time
