"""Scales that train with the network: Learned Step Size Quantization, LSQ (arXiv 1902.08153).

1. A scale is a fixed base times a parameter, by `learned_scale`. Weights have the base 1, and the parameter
   starts at `initial_weight_scale`. Inputs have the calibrated scale as base, and the parameter is a factor
   that starts at 1. So the end of a calibration writes to no parameter, which FSDP's shards wouldn't allow.
2. `quantize_learned` rounds to the nearest code, unsigned numbers too.
3. The gradient reaches a number within the range, and the scale by equation 3 of the paper.
4. The scale's gradient is divided by sqrt(count * largest code), as in section 2.2 there. `count` is the
   number of weights, or of features of one example, that share the scale.

LSQ has one scale for a layer, here each output channel of weights has one. Its codes reach to -2^(bits - 1),
here they are symmetric.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from cadenza.quantization.training.fake_quantize import EPSILON, code_range, codes, dequantized, qmax


def initial_weight_scale(weight: Tensor, bits: int) -> Tensor:
    """LSQ's first scale of each output channel, (out,): 2 mean |w| / sqrt(qmax), in the dtype of `weight`."""
    mean = weight.detach().abs().flatten(1).double().mean(1) + EPSILON
    return (2 * mean / math.sqrt(qmax(bits))).to(weight.dtype)


def learned_scale(parameter: Tensor, base: Tensor | float) -> Tensor:
    """`parameter` times `base`, at least float32 and always above zero.

    A step of SGD moves the product as if the scale itself were the parameter, whatever `base` is. A parameter
    at EPSILON or below counts as EPSILON and keeps its gradient, so it can come back.
    """
    return _Scale.apply(parameter, base)  # pyright: ignore[reportReturnType]


def quantize_learned(x: Tensor, scale: Tensor, bits: int, signed: bool, count: float) -> Tensor:
    """`x` rounded to the nearest codes times `scale`, in its own dtype, with gradients for both.

    Args:
        scale: the result of `learned_scale`, in a shape that broadcasts to `x`.
        count: the numbers of one example that share a scale.
    """
    return _QuantizeLearned.apply(x, scale, bits, signed, count)  # pyright: ignore[reportReturnType]


def used(x: Tensor, parameter: Tensor) -> Tensor:
    """`x`; `parameter` gets a gradient of zeros. DDP waits for the gradients of all parameters."""
    return _Used.apply(x, parameter)  # pyright: ignore[reportReturnType]


class _Scale(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(parameter: Tensor, base: Tensor | float) -> Tensor:
        wide = parameter.float() if parameter.element_size() < 4 else parameter
        return wide.clamp(min=EPSILON) * base

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        parameter, ctx.base = inputs
        ctx.dtype = parameter.dtype

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return (grad / ctx.base).to(ctx.dtype), None


class _QuantizeLearned(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, scale: Tensor, bits: int, signed: bool, count: float) -> Tensor:
        return dequantized(codes(x, scale, bits, signed, nearest=True), scale, x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, scale, *ctx.options, ctx.count = inputs
        ctx.save_for_backward(x, scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, scale = ctx.saved_tensors
        low, high = code_range(*ctx.options)
        scaled = x * scale.reciprocal()
        inside = (scaled > low) & (scaled < high)
        of_scale = codes(x, scale, *ctx.options, nearest=True) - scaled * inside  # equation 3
        of_scale = (grad * of_scale).sum_to_size(scale.shape) / math.sqrt(ctx.count * high)
        return (grad * inside).to(grad.dtype), of_scale.to(scale.dtype), None, None, None


class _Used(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, parameter: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return grad, torch.zeros_like(ctx.saved_tensors[0])
