"""A matrix in few bits, as bitsandbytes stores it: nf4, fp4, both with double quantization, and int8.

1. `pack` turns a weight (out, in) into named tensors: codes, and statistics such as the absmax of a block.
2. `unpack` turns those tensors back into a matrix (out, in).
3. `product` multiplies an input (..., in) by the transposed matrix, where possible without unpacking it.
4. `Product` adds the gradient of the input. Its backward unpacks the matrix again, to save memory.

The kernels are bitsandbytes', but not the layers and parameters. Statistics are float32 numbers stored as the
bits of int32 tensors: casts of a model (`model.half()`, FSDP's `buffer_dtype`) round floats, but no integers.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cadenza.surgery.errors import SurgeryError

BLOCK = 64  # weights that share an absmax
NESTED_BLOCK = 256  # absmax values that share an absmax of their own
OUTLIER = 6.0  # input features of this size or more stay in 16 bits (LLM.int8, arXiv 2208.07339, section 3.2)
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
            return {"weight": codes, name: _bits(absmax)}
        mean = absmax.mean()
        codes8, nested = ops.quantize_blockwise(absmax - mean, _code_values(weight.device), NESTED_BLOCK)
        return {"weight": codes, name: codes8, f"nested_{name}": _bits(nested), f"{name}_mean": _bits(mean)}

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
            return ops.gemm_4bit(x, stored[0], shape, _floats(stored[1]), BLOCK, self.codebook)
        codes, absmax, nested, mean = stored
        inner = {"absmax_8bit": absmax, "absmax_code": _code_values(x.device), "absmax_offset": _floats(mean)}
        return ops.gemm_4bit(x, codes, shape, _floats(nested), BLOCK, self.codebook, **inner)

    def _absmax(self, stored: Stored) -> Tensor:
        if not self.nested:
            return _floats(stored[1])
        _, codes8, nested, mean = stored
        values, absmax = _code_values(codes8.device), _floats(nested)
        return ops.dequantize_blockwise(codes8, absmax, values, NESTED_BLOCK, torch.float32) + _floats(mean)


class Int8(NamedTuple):
    """A weight is a multiple of the absmax of its row / 127 (LLM.int8, arXiv 2208.07339); 8 bits a weight."""

    def pack(self, weight: Tensor) -> dict[str, Tensor]:
        """The codes (out, in, 1) and the absmax of rows; the last axis refuses loads of float weights."""
        codes, absmax, _ = ops.int8_vectorwise_quant(weight.to(torch.float16).contiguous())
        return {"weight": codes[..., None], "int8_absmax": _bits(absmax)}

    def unpack(self, stored: Stored, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        codes, absmax = stored
        return (codes.view(shape) * (_floats(absmax) / 127)[:, None]).to(dtype)

    def product(self, x: Tensor, stored: Stored, shape: torch.Size) -> Tensor:
        """x (..., in) times the transposed matrix, (..., out), in int8 except for outlier features of x."""
        rows, codes, absmax = x.reshape(-1, shape[1]), stored[0].view(shape), _floats(stored[1])
        if len(rows) == 0:
            return x.new_empty(*x.shape[:-1], shape[0])
        half = rows.to(torch.float16, copy=True)  # the kernel writes into its input
        row_codes, row_absmax, outliers = ops.int8_vectorwise_quant(half, OUTLIER)
        out, _ = ops.int8_mixed_scaled_mm(rows, row_codes, codes, row_absmax, absmax, outliers)
        return out.view(*x.shape[:-1], shape[0])


FORMATS: dict[str, FourBit | Int8] = {
    "nf4": FourBit("nf4", nested=False),
    "nf4-dq": FourBit("nf4", nested=True),
    "fp4": FourBit("fp4", nested=False),
    "fp4-dq": FourBit("fp4", nested=True),
    "int8": Int8(),
}


def require_library() -> None:
    """Import bitsandbytes, which registers the kernels.

    Raises:
        SurgeryError: it isn't installed.
    """
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise SurgeryError("quantization needs bitsandbytes: pip install 'cadenza[quantization]'") from error


class Product(torch.autograd.Function):
    """x times the transposed matrix of format `name`; forward unpacks it if `unpack`, backward always."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, name: str, shape: torch.Size, unpack: bool, *stored: Tensor) -> Tensor:
        ctx.save_for_backward(*stored)
        ctx.matrix = name, shape
        form = FORMATS[name]
        return F.linear(x, form.unpack(stored, shape, x.dtype)) if unpack else form.product(x, stored, shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (name, shape), (grad,) = ctx.matrix, grads
        matrix = FORMATS[name].unpack(ctx.saved_tensors, shape, grad.dtype)
        return grad @ matrix, None, None, None, *(None for _ in ctx.saved_tensors)


def _bits(floats: Tensor) -> Tensor:
    return floats.float().view(torch.int32)


def _floats(bits: Tensor) -> Tensor:
    return bits.view(torch.float32)


@cache
def _code_values(device: torch.device) -> Tensor:
    """The 256 values that codes of absmax select: bitsandbytes' signed dynamic map."""
    from bitsandbytes.functional import create_dynamic_map

    with torch.device("cpu"):  # the default device may be meta
        return create_dynamic_map().to(device)
