"""What a code of few bits stands for, before its scale: E2M1 and unsigned integers in 4 bits, E4M3 in 8.

Numbers are rounded to the nearest element, a tie to the even code; beyond the largest element they saturate.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from cadenza.quantization.stored.bits import as_bits, as_floats


class Nibbles(NamedTuple):
    """16 elements; two codes share a byte, the first one the low half, across rows.

    A signed code has its sign in the top bit, as E2M1 of the OCP Microscaling specification (v1.0, section
    5.3.3) has.
    """

    values: tuple[float, ...]  # by ascending code; of a signed one the magnitudes
    signed: bool

    @property
    def top(self) -> float:
        """The largest element."""
        return self.values[-1]

    def store(self, x: Tensor) -> Tensor:
        """The codes of the elements next to `x`, as bytes (ceil(numel / 2), 1)."""
        numbers = (x.abs() if self.signed else x).contiguous()
        codes = torch.bucketize(numbers, self._edges(x.device), out_int32=True)
        if self.signed:
            codes = codes + 8 * x.signbit()
        flat = torch.nn.functional.pad(codes.flatten().to(torch.uint8), (0, x.numel() % 2))
        return (flat[::2] | flat[1::2] << 4)[:, None]

    def read(self, stored: Tensor, shape: torch.Size) -> Tensor:
        """The elements, float32, in `shape`."""
        table = (*self.values, *(-v for v in self.values)) if self.signed else self.values
        codes = torch.cat([stored & 15, stored >> 4], 1).flatten()[: shape.numel()]
        return torch.tensor(table, device=stored.device).index_select(0, codes.int()).view(shape)

    def _edges(self, device: torch.device) -> Tensor:
        """The numbers up to which each code reaches: a middle belongs to the even one of its neighbours."""
        values = torch.tensor(self.values, device=device)
        middles = (values[:-1] + values[1:]) / 2  # exact
        middles[1::2] = middles[1::2].nextafter(values[0])
        return middles


class Float8(NamedTuple):
    """The numbers of a float8 type without infinity; a code a byte."""

    dtype: torch.dtype

    @property
    def top(self) -> float:
        """The largest element."""
        return torch.finfo(self.dtype).max

    def store(self, x: Tensor) -> Tensor:
        """The codes (*x.shape, 1); the last axis refuses loads of float weights."""
        return as_bits(x.clamp(-self.top, self.top).to(self.dtype))[..., None]

    def read(self, stored: Tensor, shape: torch.Size) -> Tensor:
        """The elements, float32, in `shape`."""
        return as_floats(stored, self.dtype).float().view(shape)


E2M1 = Nibbles((0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0), signed=True)
UINT4 = Nibbles(tuple(float(code) for code in range(16)), signed=False)
E4M3 = Float8(torch.float8_e4m3fn)
