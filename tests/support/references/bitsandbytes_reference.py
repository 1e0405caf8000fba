"""The formats of bitsandbytes in plain PyTorch, from their papers: what packed values must be, bit by bit."""

import math
from statistics import NormalDist

import torch

BLOCK, NESTED_BLOCK = 64, 256


# NF4 as QLoRA's appendix E prints it; `normal_float` are the quantiles that these are rounded from.
# fmt: off
NF4 = torch.tensor([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
])
# fmt: on


def normal_float():
    """Quantiles of the normal distribution, 8 above zero and 7 below, scaled to 1, in float64."""
    end = (1 - 1 / 32 + 1 - 1 / 30) / 2
    above = [NormalDist().inv_cdf(0.5 + (end - 0.5) * i / 8) for i in range(1, 9)]
    below = [-NormalDist().inv_cdf(0.5 + (end - 0.5) * i / 7) for i in range(7, 0, -1)]
    return torch.tensor([*below, 0.0, *above], dtype=torch.float64) / above[-1]


def float4():
    """FP4: sign, two bits of exponent, one of mantissa, in the order of their bits, scaled to 1."""
    magnitudes = [0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0]
    return torch.tensor([*magnitudes, *(-m for m in magnitudes)]) / 12


def dynamic8():
    """Signed dynamic data type: decades 1e-6 to 1, a linear fraction in each (arXiv 1511.04561)."""
    values = [0.0, 1.0]
    for decade in range(7):
        edges = torch.linspace(0.1, 1, 2**decade + 1, dtype=torch.float32)
        means = (edges[:-1] + edges[1:]) / 2
        values += [sign * v for v in (10.0 ** (decade - 6) * means).tolist() for sign in (1, -1)]
    return torch.tensor(sorted(values), dtype=torch.float32)


def blocks(flat, size):
    padded = torch.zeros(math.ceil(len(flat) / size) * size)
    padded[: len(flat)] = flat
    return padded.view(-1, size)


def nearest(values, table):
    """The index in `table` of the value next to each of `values`."""
    ascending, order = table.sort(stable=True)
    return order[torch.bucketize(values, (ascending[:-1] + ascending[1:]) / 2)]


def four_bit(weight, table):
    """Codes, two a byte with the first in the high half, and absmax of each block."""
    rows = blocks(weight.float().flatten(), BLOCK)
    absmax = rows.abs().amax(1)
    codes = (
        nearest(rows * (1 / absmax.clamp(min=1e-38))[:, None], table)
        .flatten()[: weight.numel()]
        .to(torch.uint8)
    )
    zero = nearest(torch.zeros(1), table).to(torch.uint8)
    codes = torch.cat([codes, zero[: len(codes) % 2]])
    return (codes[::2] << 4 | codes[1::2])[:, None], absmax


def nested(absmax):
    """Double quantization: codes of absmax less its mean, absmax of those, and the mean."""
    mean = absmax.mean()
    rows = blocks(absmax - mean, NESTED_BLOCK)
    top = rows.abs().amax(1)
    codes = (
        nearest(rows * (1 / top.clamp(min=1e-38))[:, None], dynamic8())
        .flatten()[: len(absmax)]
        .to(torch.uint8)
    )
    return codes, top, mean


def rowwise_int8(weight):
    """Codes and absmax of each row, of the weight in float16."""
    half = weight.to(torch.float16)
    absmax = half.abs().amax(1).float()
    return torch.round(half * (127.0 / absmax)[:, None]).to(torch.int8), absmax


def unpacked(codes, absmax, table, shape):
    """The matrix that 4-bit codes stand for, in float64."""
    numel = math.prod(shape)
    both = torch.stack([codes[:, 0] >> 4, codes[:, 0] & 15], 1).flatten()[:numel].long()
    scale = absmax.double().repeat_interleave(BLOCK)[:numel]
    return (table.double()[both] * scale).view(shape)
