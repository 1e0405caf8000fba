"""int4, mxfp4, nvfp4 and fp8 in plain loops, from their specifications: packed values bit by bit.

Numbers are float64; those that the formats keep in another type are rounded to it.
"""

import math

import torch

E2M1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
GROUP = {"int4": 128, "mxfp4": 32, "nvfp4": 16, "fp8": None}
STATISTICS = {  # of a group, and of the tensor
    "int4": ("int4_scale", "int4_zero_point"),
    "mxfp4": ("mxfp4_scale",),
    "nvfp4": ("nvfp4_scale", "nvfp4_tensor_scale"),
    "fp8": ("fp8_scale",),
}


def e4m3():
    """Magnitudes by code: 4 bits of exponent with bias 7, 3 of mantissa, neither infinity nor NaN."""
    return [(code % 8 / 8 + (code >= 8)) * 2.0 ** (max(code // 8, 1) - 7) for code in range(127)]


def f32(x):
    return torch.as_tensor(x, dtype=torch.float64).float().double()


def bf16(x):
    return torch.as_tensor(x, dtype=torch.float64).bfloat16().double()


def nearest(x, grid):
    """The codes of the numbers in `grid` next to `x` (n,): of two that are as near, the even code."""
    distance = (x[:, None] - torch.tensor(grid, dtype=torch.float64)).abs()
    ties = distance == distance.amin(1, keepdim=True)
    even = torch.arange(len(grid)) % 2 == 0
    return (ties.int() * (1 + even)).argmax(1)


def signed(x, grid, sign):
    """The codes of `x` by magnitude, plus `sign` for negative numbers."""
    return nearest(x.abs(), grid) + sign * x.signbit()


def of_group(name, weights, whole):
    """The codes of a group of weights (n,), its statistics, and the numbers that both stand for."""
    top = max(weights.abs().tolist())
    if name == "int4":
        low, high = min(0.0, min(weights.tolist())), max(0.0, max(weights.tolist()))
        scale = bf16(f32(f32(high - low) / 15)) or torch.tensor(1.0).double()
        zero = f32(-low / scale).round()
        codes = nearest(f32(f32(weights / scale) + zero), [float(code) for code in range(16)])
        return codes, (scale.item(), int(zero)), (codes - zero) * scale
    if name == "mxfp4":
        exponent = math.floor(math.log2(top)) - 2 if top else -127
        scale = 2.0**exponent
        codes = signed(f32(weights / scale), E2M1, 8)
        statistics = (exponent + 127,)
    elif name == "nvfp4":
        small = f32(f32(top / whole) / 6).clamp(2**-9, 448)
        statistics = (int(nearest(small[None], e4m3())),)
        scale = f32(e4m3()[statistics[0]] * whole)
        codes = signed(f32(weights / scale), E2M1, 8)
    else:
        scale = f32(top / 448) or torch.tensor(1.0).double()
        codes, statistics = signed(f32(weights / scale), e4m3(), 128), (float(scale),)
    grid = e4m3() if name == "fp8" else E2M1
    values = torch.tensor([*grid, *[math.nan] * (name == "fp8"), *(-v for v in grid)], dtype=torch.float64)
    return codes, statistics, values[codes] * scale


def packed(name, weight):
    """Codes (out, in), the statistics of each group in order, the tensor's scale, and the float64 matrix."""
    weight = weight.double()
    whole = f32(weight.abs().max() / (6 * 448)) or torch.tensor(1.0).double()
    groups = [g for row in weight for g in row.split(GROUP[name] or len(row))]
    found = [of_group(name, group, whole) for group in groups]
    codes, matrix = (torch.cat([f[i] for f in found]).view(weight.shape) for i in (0, 2))
    return codes, [f[1] for f in found], whole, matrix


def nibbles(codes):
    """Two codes in a byte, the first in the low half."""
    flat = [*codes.flatten().tolist(), *[0] * (codes.numel() % 2)]
    return torch.tensor([a + 16 * b for a, b in zip(flat[::2], flat[1::2], strict=True)]).to(torch.uint8)
