"""Uniform integer quantization in floating point: the quantizers of AQT (arXiv 2105.03536).

A number is a code, an integer of few bits, times a step. Gradients go straight through the rounding, and are
zero where a number was clipped. Steps are float32 tensors of at least one dimension, so that numbers of fewer
bits are rounded in float32.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

_ops: Any = torch.ops.aten
EPSILON = torch.finfo(torch.float32).eps  # to bounds, so that a step of zeros isn't zero


def most(bits: int) -> int:
    """The largest code with a sign; codes are symmetric, so of four bits -7 to 7."""
    return 2 ** (bits - 1) - 1


def step_of(bound: Tensor, bits: int, signed: bool) -> Tensor:
    """What a code of one stands for, where codes reach to `bound`.

    Without a sign there are 2^bits steps below the bound, and the last one is clipped.
    """
    return (bound + EPSILON) / (most(bits) if signed else 2**bits)


def codes(x: Tensor, step: Tensor, bits: int, signed: bool) -> Tensor:
    """The codes of `x`, as floating-point numbers: the nearest with a sign, rounded down without."""
    scaled = x * step.reciprocal()
    if signed:
        return scaled.add_(0.5).floor_().clamp_(-most(bits), most(bits))
    return scaled.floor_().clamp_(0, 2**bits - 1)


def quantize(x: Tensor, step: Tensor, bits: int, signed: bool) -> Tensor:
    """`x` rounded to codes, in its own dtype; the gradient is that inside of the bound, zero outside."""
    return _Rounded.apply(x, step, bits, signed)  # pyright: ignore[reportReturnType]


def weight_step(weight: Tensor, bits: int) -> Tensor:
    """The step of each output channel, (out, 1, ...): its largest weight has the largest code."""
    bound = weight.detach().abs().flatten(1).amax(1)
    bound = bound.float() if bound.element_size() < 4 else bound
    return step_of(bound, bits, signed=True).view(-1, *[1] * (weight.ndim - 1))


def quantize_weight(weight: Tensor, bits: int) -> Tensor:
    """`weight` rounded to codes by output channel, in its own dtype; the gradient is as if it weren't."""
    return _Straight.apply(weight, bits)  # pyright: ignore[reportReturnType]


class _Rounded(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, bits: int, signed: bool) -> Tensor:
        ctx.save_for_backward(x, step)
        ctx.kind = bits, signed
        return _numbers(codes(x, step, bits, signed), step, x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, step = ctx.saved_tensors
        bits, signed = ctx.kind
        limit = step * (most(bits) if signed else 2**bits)
        room = x.abs().neg().add(limit) if signed else limit - x
        # The kernel of ReLU's backward, since a mask and a product take twice as long.
        least = -torch.finfo(torch.float32).tiny if signed else 0.0  # with a sign the bound itself is inside
        return _ops.threshold_backward(grad, room.to(grad.dtype), least), None, None, None


class _Straight(Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, bits: int) -> Tensor:
        step = weight_step(weight, bits)
        return _numbers(codes(weight, step, bits, signed=True), step, weight.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return grad, None


def _numbers(whole: Tensor, step: Tensor, dtype: torch.dtype) -> Tensor:
    """What codes stand for, in their place; compiled by torch 2.11, that would lose their gradients."""
    numbers = whole * step if torch.compiler.is_compiling() else whole.mul_(step)
    return numbers if numbers.dtype == dtype else numbers.to(dtype)
