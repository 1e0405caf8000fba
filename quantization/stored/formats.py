"""A matrix in few bits: as bitsandbytes stores it, and by groups that share a scale.

1. `pack` turns a weight (out, in) into named tensors: codes, and statistics such as the absmax of a block.
2. `unpack` turns those tensors back into a matrix (out, in).
3. `product` multiplies an input (..., in) by the transposed matrix, where possible without unpacking it.

For its formats the kernels are bitsandbytes', but not the layers and parameters. Statistics are stored as in
`bits.py`.
"""

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cadenza.quantization.stored.bits import as_bits, as_floats
from cadenza.quantization.stored.elements import E2M1, E4M3, UINT4
from cadenza.quantization.stored.grouped import Grouped
from cadenza.quantization.stored.int8 import Int8
from cadenza.surgery.errors import SurgeryError

BLOCK = 64  # weights that share an absmax
NESTED_BLOCK = 256  # absmax values that share an absmax of their own
KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

Stored = Sequence[Tensor]
ops: Any = torch.ops.bitsandbytes


class FourBit(NamedTuple):
    """A weight is the nearest of 16 values times the absmax of its block of 64 weights; 4.5 bits a weight.

    `nested` is double quantization (QLoRA, arXiv 2305.14314, section 3): the absmax values minus their mean
    are stored in 8 bits; 4.127 bits a weight.
    """

    codebook: str  # nf4 or fp4
    nested: bool

    def pack(self, weight: Tensor) -> dict[str, Tensor]:
        """The named tensors for `weight` (out, in): two codes in a byte, and statistics."""
        name = f"{self.codebook}_absmax"
        codes, absmax = ops.quantize_4bit(weight.contiguous(), BLOCK, self.codebook, torch.uint8)
        if not self.nested:
            return {"weight": codes, name: as_bits(absmax)}
        mean = absmax.mean()
        codes8, nested = ops.quantize_blockwise(absmax - mean, _code_values(weight.device), NESTED_BLOCK)
        return {
            "weight": codes,
            name: codes8,
            f"nested_{name}": as_bits(nested),
            f"{name}_mean": as_bits(mean),
        }

    def unpack(self, stored: Stored, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """The matrix (out, in) in `dtype` that `stored` represents."""
        numel = shape.numel()
        kernel_dtype = dtype if dtype in KERNEL_DTYPES else torch.float32
        # One row of even length: for others there is no CPU kernel, and torch compiles a substitute.
        row = (1, numel + numel % 2)
        flat = ops.dequantize_4bit(stored[0], self._absmax(stored), BLOCK, self.codebook, row, kernel_dtype)
        return flat[0, :numel].view(shape).to(dtype)

    def product(self, x: Tensor, stored: Stored, shape: torch.Size) -> Tensor:
        """x (..., in) times the transposed matrix, (..., out); on CUDA without unpacking the matrix."""
        if not x.is_cuda or x.dtype not in KERNEL_DTYPES:
            return F.linear(x, self.unpack(stored, shape, x.dtype))
        if not self.nested:
            return ops.gemm_4bit(x, stored[0], shape, as_floats(stored[1]), BLOCK, self.codebook)
        codes, absmax, nested, mean = stored
        inner = {
            "absmax_8bit": absmax,
            "absmax_code": _code_values(x.device),
            "absmax_offset": as_floats(mean),
        }
        return ops.gemm_4bit(x, codes, shape, as_floats(nested), BLOCK, self.codebook, **inner)

    def _absmax(self, stored: Stored) -> Tensor:
        if not self.nested:
            return as_floats(stored[1])
        _, codes8, nested, mean = stored
        values, absmax = _code_values(codes8.device), as_floats(nested)
        return ops.dequantize_blockwise(codes8, absmax, values, NESTED_BLOCK, torch.float32) + as_floats(mean)


FORMATS: dict[str, FourBit | Int8 | Grouped] = {
    "nf4": FourBit("nf4", nested=False),
    "nf4-dq": FourBit("nf4", nested=True),
    "fp4": FourBit("fp4", nested=False),
    "fp4-dq": FourBit("fp4", nested=True),
    "int8": Int8(),
    # bfloat16 holds scales of any size, float16 none below 6e-8; on normal weights both have 10.06 % error.
    "int4": Grouped("int4", UINT4, 128, torch.bfloat16),
    "mxfp4": Grouped("mxfp4", E2M1, 32, torch.float8_e8m0fnu),
    "nvfp4": Grouped("nvfp4", E2M1, 16, torch.float8_e4m3fn, per_tensor=True),
    "fp8": Grouped("fp8", E4M3, None, torch.float32),
}


def require_library(format: str = "nf4") -> None:
    """Import bitsandbytes, which registers the kernels, if `format` is one of its own.

    Raises:
        SurgeryError: it isn't installed.
    """
    if isinstance(FORMATS[format], Grouped):
        return
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise SurgeryError(
            f"{format} needs bitsandbytes: pip install 'cadenza[quantization]'; without it there are "
            f"{', '.join(name for name, form in FORMATS.items() if isinstance(form, Grouped))}"
        ) from error


def packed(path: str, format: str, weight: Tensor) -> tuple[dict[str, Tensor], float | None]:
    """The stored tensors of the weight of the layer at `path`, and their error.

    The error is the Frobenius norm of the difference over that of `weight`; None on meta.

    Raises:
        SurgeryError: the weight isn't finite in float32, or nothing of it is left.
    """
    exact = weight.detach()
    given = exact.float() if exact.element_size() > 4 else exact
    if not exact.is_meta and not given.isfinite().all():
        raise SurgeryError(f"{path}: its weight isn't finite everywhere in float32; nothing was quantized")
    stored = FORMATS[format].pack(given)
    if exact.is_meta:
        return stored, None
    wrong = FORMATS[format].unpack(tuple(stored.values()), exact.shape, torch.float32) - exact
    error = float(_norm(wrong) / _norm(exact)) if exact.any() else 0.0
    if not error < 1:
        top = f"{float(exact.abs().max()):.1e}"
        raise SurgeryError(
            f"{path}: {format} can't hold its weight, of absolute values up to {top}; name it in except_"
        )
    return stored, error


def _norm(x: Tensor) -> Tensor:
    """In float64: squares of small numbers vanish in float32."""
    return torch.linalg.vector_norm(x, dtype=torch.float64)


def make_code_values() -> None:
    """Make the table that double quantization keeps on a CPU, before tensors are fake.

    Without the library there is no such table, nor a format that reads it; see `require_library`.
    """
    if find_spec("bitsandbytes"):
        _code_values(torch.device("cpu"))


@cache
def _code_values(device: torch.device) -> Tensor:
    """The 256 values that codes of absmax select: bitsandbytes' signed dynamic map."""
    from bitsandbytes.functional import create_dynamic_map

    with torch.device("cpu"):  # the default device may be meta
        return create_dynamic_map().to(device)
