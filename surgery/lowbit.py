"""A matrix in few bits, as bitsandbytes stores it: nf4, fp4, both with double quantization, and int8.

Statistics are float32 numbers kept as their bits in int32 tensors: casts of a model (`model.half()`, FSDP's
`buffer_dtype`) leave integers alone and would round floats.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cadenza.surgery.errors import SurgeryError

BLOCK = 64  # weights that share an absmax
NESTED_BLOCK = 256  # such absmax that share one of their own
OUTLIER = (
    6.0  # from here on a feature of the input stays in 16 bits (LLM.int8, arXiv 2208.07339, section 3.2)
)
KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

Stored = Sequence[Tensor]
ops: Any = torch.ops.bitsandbytes


class FourBit(NamedTuple):
    """Blocks of 64 weights, each weight the nearest of 16 values times the block's absmax.

    4.5 bits a weight; `nested` (double quantization, QLoRA, arXiv 2305.14314, section 3) holds the absmax,
    less their mean, in 8 bits: 4.127 bits.
    """

    codebook: str  # nf4 or fp4
    nested: bool

    def pack(self, weight: Tensor) -> dict[str, Tensor]:
        """The named tensors that stand for `weight` (out, in): two codes a byte, and the statistics."""
        name = f"{self.codebook}_absmax"
        codes, absmax = ops.quantize_4bit(weight.contiguous(), BLOCK, self.codebook, torch.uint8)
        if not self.nested:
            return {"weight": codes, name: _bits(absmax)}
        offset = absmax.mean()
        codes8, nested = ops.quantize_blockwise(absmax - offset, _map(weight.device), NESTED_BLOCK)
        return {"weight": codes, name: codes8, f"nested_{name}": _bits(nested), f"{name}_mean": _bits(offset)}

    def unpack(self, stored: Stored, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """The matrix (out, in) that `stored` stands for."""
        numel = shape.numel()
        near = dtype if dtype in KERNEL_DTYPES else torch.float32
        # As one row of even length: the CPU kernel has no other, and torch.compiles a substitute instead.
        row = (1, numel + numel % 2)
        flat = ops.dequantize_4bit(stored[0], self._absmax(stored), BLOCK, self.codebook, row, near)
        return flat[0, :numel].view(shape).to(dtype)

    def product(self, x: Tensor, stored: Stored, shape: torch.Size) -> Tensor:
        """x (..., in) times the transposed matrix, (..., out); on CUDA the matrix is never whole."""
        if not x.is_cuda or x.dtype not in KERNEL_DTYPES:
            return F.linear(x, self.unpack(stored, shape, x.dtype))
        if not self.nested:
            return ops.gemm_4bit(x, stored[0], shape, _floats(stored[1]), BLOCK, self.codebook)
        codes, absmax, nested, mean = stored
        kept = {"absmax_8bit": absmax, "absmax_code": _map(x.device), "absmax_offset": _floats(mean)}
        return ops.gemm_4bit(x, codes, shape, _floats(nested), BLOCK, self.codebook, **kept)

    def _absmax(self, stored: Stored) -> Tensor:
        if not self.nested:
            return _floats(stored[1])
        _, codes, nested, mean = stored
        near = ops.dequantize_blockwise(
            codes, _floats(nested), _map(codes.device), NESTED_BLOCK, torch.float32
        )
        return near + _floats(mean)


class Int8(NamedTuple):
    """Each row in multiples of its absmax / 127 (LLM.int8, arXiv 2208.07339); 8 bits a weight."""

    def pack(self, weight: Tensor) -> dict[str, Tensor]:
        """The codes (out, in, 1), whose last axis keeps float weights from being loaded there, and absmax."""
        codes, absmax, _ = ops.int8_vectorwise_quant(weight.to(torch.float16).contiguous())
        return {"weight": codes[..., None], "int8_absmax": _bits(absmax)}

    def unpack(self, stored: Stored, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """The matrix (out, in) that `stored` stands for."""
        codes, absmax = stored
        return (codes.view(shape) * (_floats(absmax) / 127)[:, None]).to(dtype)

    def product(self, x: Tensor, stored: Stored, shape: torch.Size) -> Tensor:
        """x (..., in) times the transposed matrix, in int8, but for the outlier features of x."""
        rows, codes, absmax = x.reshape(-1, shape[1]), stored[0].view(shape), _floats(stored[1])
        if len(rows) == 0:
            return x.new_empty(*x.shape[:-1], shape[0])
        near, row_absmax, outliers = ops.int8_vectorwise_quant(rows.to(torch.float16, copy=True), OUTLIER)
        out, _ = ops.int8_mixed_scaled_mm(rows, near, codes, row_absmax, absmax, outliers)
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
        raise SurgeryError(
            "quantized weights need bitsandbytes: pip install 'cadenza[quantization]'"
        ) from error


class Product(torch.autograd.Function):
    """x times the stored matrix; for the gradient of x the matrix is unpacked again, not kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, name: str, shape: torch.Size, whole: bool, *stored: Tensor) -> Tensor:
        ctx.save_for_backward(*stored)
        ctx.how = name, shape
        form = FORMATS[name]
        return F.linear(x, form.unpack(stored, shape, x.dtype)) if whole else form.product(x, stored, shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (name, shape), (grad,) = ctx.how, grads
        unpacked = FORMATS[name].unpack(ctx.saved_tensors, shape, grad.dtype)
        return grad @ unpacked, None, None, None, *(None for _ in ctx.saved_tensors)


def _bits(floats: Tensor) -> Tensor:
    return floats.float().view(torch.int32)


def _floats(bits: Tensor) -> Tensor:
    return bits.view(torch.float32)


@cache
def _map(device: torch.device) -> Tensor:
    """The 256 values of the nested statistics: bitsandbytes' signed dynamic map."""
    from bitsandbytes.functional import create_dynamic_map

    with torch.device("cpu"):  # whatever the default device is just now
        return create_dynamic_map().to(device)
