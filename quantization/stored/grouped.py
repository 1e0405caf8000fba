"""A matrix in few bits, of which weights in a group share a scale; in plain torch, without a kernel.

1. Each row is cut into groups; the last one of a row may be short.
2. A group has a scale, by which its largest weight becomes the largest element. The scale is rounded to its
   own type first.
3. Weights are divided by the rounded scale, and rounded to elements (`elements.py`).

Products unpack the matrix: this measures what a format does to a model, not how fast its kernels are.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cadenza.quantization.stored.bits import as_bits, as_floats
from cadenza.quantization.stored.elements import E4M3, UINT4, Float8, Nibbles

SMALLEST_E4M3 = 2.0**-9  # above zero


class Grouped(NamedTuple):
    """A weight is an element times the scale of its group, and times a scale of the tensor if `per_tensor`.

    Unsigned elements are affine: a group has a zero point, too, which is one of them, so that 0 stays 0.
    """

    name: str
    elements: Nibbles | Float8
    group: int | None  # weights of a row that share a scale; None: all of a row
    scale: torch.dtype
    per_tensor: bool = False  # whether scales are multiples of one float32

    def pack(self, weight: Tensor) -> dict[str, Tensor]:
        """The named tensors for `weight` (out, in): codes, scales (out, groups), and a second statistic."""
        groups = self._groups(weight.float())
        low, high = groups.amin(2).clamp(max=0), groups.amax(2).clamp(min=0)
        reach = high - low if self._affine else torch.maximum(high, -low)
        whole = _never_zero(_over(reach.amax(), self.elements.top * E4M3.top)) if self.per_tensor else None
        rounded = self._scales(reach if whole is None else reach / whole)
        scale = rounded.float() if whole is None else rounded.float() * whole
        stored = {f"{self.name}_scale": as_bits(rounded)}
        elements = groups / scale[..., None]
        if whole is not None:
            stored[f"{self.name}_tensor_scale"] = as_bits(whole)
        if self._affine:
            zero = (-low / scale).round().clamp(max=UINT4.top)  # in subnormal scales it may be beyond
            stored[f"{self.name}_zero_point"] = UINT4.store(zero)
            elements = elements + zero[..., None]
        return {"weight": self.elements.store(elements.flatten(1)[:, : weight.shape[1]]), **stored}

    def unpack(self, stored: Sequence[Tensor], shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """The matrix (out, in) in `dtype` that `stored` represents; float32 before."""
        codes, scale_bits, *second = stored
        scale, elements = as_floats(scale_bits, self.scale).float(), self.elements.read(codes, shape)
        if self.per_tensor:
            scale = scale * as_floats(second[0])
        if self._affine:
            elements = elements - self._spread(UINT4.read(second[0], scale.shape), shape)
        return (elements * self._spread(scale, shape)).to(dtype)

    def product(self, x: Tensor, stored: Sequence[Tensor], shape: torch.Size) -> Tensor:
        """x (..., in) times the transposed matrix, (..., out)."""
        return F.linear(x, self.unpack(stored, shape, x.dtype))

    @property
    def _affine(self) -> bool:
        return self.elements == UINT4

    def _groups(self, weight: Tensor) -> Tensor:
        """`weight` (out, in) as (out, groups, group): zeros fill a short group, which change no scale."""
        rows, columns = weight.shape
        group = self.group or columns
        return F.pad(weight, (0, -columns % group)).view(rows, -1, group)

    def _spread(self, of_groups: Tensor, shape: torch.Size) -> Tensor:
        """`of_groups` (out, groups) for each weight, (out, in)."""
        group = self.group or shape[1]
        return of_groups[..., None].expand(-1, -1, group).flatten(1)[:, : shape[1]]

    def _scales(self, reach: Tensor) -> Tensor:
        """The scales, in their type, of groups whose largest numbers are `reach`.

        A scale in E8M0 is 2^(floor(log2(reach)) - 2), as the OCP Microscaling specification has it (v1.0,
        section 6.3): E2M1's largest power of two is 2^2, and numbers above 6 times the scale saturate. One in
        E4M3 isn't rounded to zero but up to the smallest number, which keeps the largest weights of a small
        group.
        """
        if self.scale == torch.float8_e8m0fnu:
            exponent = as_bits(reach) >> 23  # biased by 127 like E8M0's
            return as_floats((exponent - 2).clamp(min=0).to(torch.uint8), self.scale)
        scale = _over(reach, self.elements.top)
        if self.scale == E4M3.dtype:
            return scale.clamp(SMALLEST_E4M3, E4M3.top).to(self.scale)
        return _never_zero(scale.to(self.scale))


def _over(numbers: Tensor, divisor: float) -> Tensor:
    """`numbers / divisor`, the same on every device: by a scalar CUDA multiplies by the reciprocal."""
    return numbers / torch.full_like(numbers, divisor)


def _never_zero(scale: Tensor) -> Tensor:
    """1 in place of 0: of a group of zeros, and of numbers so small that their scale vanished."""
    return scale.masked_fill(scale == 0, 1)
