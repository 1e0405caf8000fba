"""A matrix in int8, as LLM.int8 stores and multiplies it (arXiv 2208.07339).

The kernels take float16. A row that float16 can't hold is divided by its largest absolute value before, and
its scale is multiplied by that value after. All other rows go through the kernels as they are, and get the
codes of bitsandbytes bit by bit.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cadenza.quantization.stored.bits import as_bits, as_floats

OUTLIER = 6.0  # input features of this size or more aren't quantized (section 3.2 of the paper)
SMALLEST, LARGEST = torch.finfo(torch.float16).tiny, torch.finfo(torch.float16).max

ops: Any = torch.ops.bitsandbytes


class Int8(NamedTuple):
    """A weight is a multiple of the absmax of its row / 127; 8 bits a weight."""

    def pack(self, weight: Tensor) -> dict[str, Tensor]:
        """The codes (out, in, 1) and the absmax of rows; the last axis refuses loads of float weights."""
        half, factor = _in_float16(weight, LARGEST)
        codes, absmax, _ = ops.int8_vectorwise_quant(half)
        return {"weight": codes[..., None], "int8_absmax": as_bits(absmax * factor)}

    def unpack(self, stored: Sequence[Tensor], shape: torch.Size, dtype: torch.dtype) -> Tensor:
        codes, absmax = stored
        return (codes.view(shape) * (as_floats(absmax) / 127)[:, None]).to(dtype)

    def product(self, x: Tensor, stored: Sequence[Tensor], shape: torch.Size) -> Tensor:
        """x (..., in) times the transposed matrix, (..., out), in int8 except for outlier features of x."""
        rows, codes, absmax = x.reshape(-1, shape[1]), stored[0].view(shape), as_floats(stored[1])
        if len(rows) == 0:
            return x.new_empty(*x.shape[:-1], shape[0])
        half, factor = _in_float16(rows, math.inf)  # larger ones are outliers
        row_codes, row_absmax, outliers = ops.int8_vectorwise_quant(half, OUTLIER)
        # Not the library's epilogue: on CUDA it overflows float16, and its 1 / 127^2 is off by 2e-5.
        sums = ops.int8_linear_matmul(row_codes, codes) * (row_absmax * factor / 127)[:, None]
        out = (sums * (absmax / 127)).to(x.dtype)
        if torch.compiler.is_compiling() or len(outliers):  # a graph can't branch on their number
            kept = self.unpack(
                (codes[:, outliers], stored[1]), torch.Size((shape[0], len(outliers))), x.dtype
            )
            out = out.addmm(rows[:, outliers], kept.T)
        return out.view(*x.shape[:-1], shape[0])


def _in_float16(rows: Tensor, largest: float) -> tuple[Tensor, Tensor]:
    """A copy of `rows` in float16, and the number (rows,) by which each row was divided: 1 where it fits."""
    rows = rows.float() if rows.element_size() < 4 else rows
    top = rows.abs().amax(1)
    fits = (top == 0) | ((top >= SMALLEST) & (top <= largest))
    factor = torch.where(fits, 1.0, top)
    return (rows / factor[:, None]).to(torch.float16), factor
