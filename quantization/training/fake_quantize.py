"""Uniform integer quantization in floating point: the quantizers of AQT (arXiv 2105.03536).

A tensor is replaced by integers of few bits (codes) times a scale:

1. `scale_of` divides a bound by qmax = 2^(bits - 1) - 1 if codes are signed, by 2^bits if they are unsigned.
2. `codes` divides by the scale, rounds (signed: to the nearest, unsigned: down), and clips to [-qmax, qmax]
   or [0, 2^bits - 1].
3. The codes times the scale are the result, in the dtype of the tensor.
4. The gradient passes straight through within the bound, and is zero where a number was clipped. With
   `edge_gradient` "half" it is a half at the ends of the clip, as in AQT: see `_half_at_ends`.

Unlike torch.ao's FakeQuantize there is no zero_point. A scale is a float32 tensor of at least one dimension,
so that type promotion rounds bfloat16 numbers in float32; that costs a cast of each result.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

_ops: Any = torch.ops.aten
EPSILON = torch.finfo(torch.float32).eps  # added to bounds, so that the scale of zeros isn't zero


def qmax(bits: int) -> int:
    """The largest signed code; codes are symmetric, -7 to 7 in four bits."""
    return 2 ** (bits - 1) - 1


def code_range(bits: int, signed: bool) -> tuple[int, int]:
    """The lowest and the highest code."""
    return (-qmax(bits), qmax(bits)) if signed else (0, 2**bits - 1)


def scale_of(bound: Tensor, bits: int, signed: bool, nearest: bool = False) -> Tensor:
    """The scale of codes that reach to `bound`; that of `bound` is clipped if unsigned and not `nearest`."""
    return (bound + EPSILON) / (2**bits if not signed and not nearest else code_range(bits, signed)[1])


def codes(x: Tensor, scale: Tensor, bits: int, signed: bool, nearest: bool = False) -> Tensor:
    """The codes of `x`, as floating-point numbers.

    Args:
        nearest: round unsigned numbers to the nearest code, as signed ones are, and not down.
    """
    scaled = x * scale.reciprocal()
    if signed or nearest:
        scaled.add_(0.5)
    return scaled.floor_().clamp_(*code_range(bits, signed))


def quantize(x: Tensor, scale: Tensor, bits: int, signed: bool, edge_gradient: str = "full") -> Tensor:
    """`x` rounded to codes times `scale`, in its own dtype; the gradient is zero outside of the bound.

    Args:
        edge_gradient: "full" or "half", the gradient at the ends of the clip.
    """
    return _Quantize.apply(x, scale, bits, signed, edge_gradient)  # pyright: ignore[reportReturnType]


def weight_scale(weight: Tensor, bits: int) -> Tensor:
    """The scale of each output channel, (out, 1, ...): its largest absolute weight has the code qmax."""
    bound = weight.detach().abs().flatten(1).amax(1)  # (out,)
    bound = bound.float() if bound.element_size() < 4 else bound
    return scale_of(bound, bits, signed=True).view(-1, *[1] * (weight.ndim - 1))


def quantize_weight(weight: Tensor, scale: Tensor, bits: int) -> Tensor:
    """`weight` rounded to codes times `scale`, which clips none; the gradient ignores the rounding."""
    return _QuantizeWeight.apply(weight, scale, bits)  # pyright: ignore[reportReturnType]


class _Quantize(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, scale: Tensor, bits: int, signed: bool, edge_gradient: str) -> Tensor:
        return dequantized(codes(x, scale, bits, signed), scale, x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, scale, *ctx.options, ctx.edge_gradient = inputs
        ctx.save_for_backward(x, scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        through = _half_at_ends if ctx.edge_gradient == "half" else _within
        return through(grad, *ctx.saved_tensors, *ctx.options), None, None, None, None


class _QuantizeWeight(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, scale: Tensor, bits: int) -> Tensor:
        return dequantized(codes(weight, scale, bits, signed=True), scale, weight.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return grad, None, None


def _within(grad: Tensor, x: Tensor, scale: Tensor, bits: int, signed: bool) -> Tensor:
    """`grad` where `x` is within the bound, zero elsewhere."""
    bound = scale * (qmax(bits) if signed else 2**bits)
    margin = x.abs().neg().add(bound) if signed else bound - x  # negative outside of the bound
    # The kernel of ReLU's backward; a mask and a product would take twice as long.
    threshold = -torch.finfo(torch.float32).tiny if signed else 0.0  # the signed bound itself is inside
    return _ops.threshold_backward(grad, margin.to(grad.dtype), threshold)


def _half_at_ends(grad: Tensor, x: Tensor, scale: Tensor, bits: int, signed: bool) -> Tensor:
    """`grad` as JAX's clip passes it in AQT: a half at an end of the clip, all within, none outside.

    AQT rounds unsigned numbers down before the clip. So all numbers of the lowest and of the highest code are
    at an end. It rounds signed numbers after the clip. So only those are that lie on the bound exactly, and
    EPSILON keeps weights below 1 off theirs.
    """
    scaled = x * scale.reciprocal()
    low, high = code_range(bits, signed)
    clipped = scaled if signed else scaled.floor_()
    share = (clipped - low).sign().add(1) * (high - clipped).sign().add(1) / 4  # 0, a half or 1
    return (grad * share).to(grad.dtype)


def dequantized(integers: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """`integers` times `scale`, in place except under torch.compile, where torch 2.11 loses the gradient."""
    result = integers * scale if torch.compiler.is_compiling() else integers.mul_(scale)
    return result if result.dtype == dtype else result.to(dtype)
