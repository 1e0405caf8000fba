"""The Triton programs of `cadenza.fused.gated`, one pass over memory each; they compute in float32."""

import triton
import triton.language as tl

SQRT_HALF = tl.constexpr(0.7071067811865476)
NORMAL = tl.constexpr(0.3989422804014327)  # 1 / sqrt(2 pi)


@triton.jit
def _activated(gate, ACT: tl.constexpr):
    """The activation of `gate`, and its derivative."""
    if ACT == "gelu":
        below = 0.5 * (1.0 + tl.math.erf(gate * SQRT_HALF))
        return gate * below, below + gate * NORMAL * tl.exp(-0.5 * gate * gate)
    if ACT == "silu":
        below = tl.sigmoid(gate)
        return gate * below, below * (1.0 + gate * (1.0 - below))
    return tl.where(gate <= 0, 0.0, gate), tl.where(gate <= 0, 0.0, 1.0)  # NaN stays NaN


@triton.jit
def _places(width, numbers, BLOCK: tl.constexpr):
    """This program's places in the (rows, width) result, the same in the gates, and which are inside."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    return place, place + place // width * width, place < numbers


@triton.jit(do_not_specialize=["numbers"])
def forward(projected, output, width, numbers, ACT: tl.constexpr, BLOCK: tl.constexpr):
    """`output` (rows, width) of `projected` (rows, 2 width)."""
    place, at, inside = _places(width, numbers, BLOCK)
    gate = tl.load(projected + at, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(projected + at + width, mask=inside, other=0.0).to(tl.float32)
    activated, _ = _activated(gate, ACT)
    tl.store(output + place, (activated * value).to(output.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["numbers"])
def backward(upstream, projected, gradient, width, numbers, ACT: tl.constexpr, BLOCK: tl.constexpr):
    """`gradient` (rows, 2 width) of `upstream` (rows, width)."""
    place, at, inside = _places(width, numbers, BLOCK)
    up = tl.load(upstream + place, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(projected + at, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(projected + at + width, mask=inside, other=0.0).to(tl.float32)
    activated, slope = _activated(gate, ACT)
    dtype = gradient.dtype.element_ty
    tl.store(gradient + at, (up * value * slope).to(dtype), mask=inside)
    tl.store(gradient + at + width, (up * activated).to(dtype), mask=inside)
