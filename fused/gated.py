"""The product of a gate and a value, in one pass over memory.

Of `act(gate) * value` torch makes two kernels, and of the backward four; compiled, the backward is one, which
takes twice the time that its memory traffic does (docs/performance.md).
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cadenza.surgery.runtime import transformed, triton_runs

BLOCK = 1024  # numbers of a program
HALF = (torch.bfloat16, torch.float16)
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "silu": F.silu, "relu": F.relu}


def gated(projected: Tensor, act: str) -> Tensor:
    """`act` of the first half of the last dimension, times the second: (..., 2 I) -> (..., I).

    In half precision on CUDA it is one kernel in each direction, where Triton is installed. The gradient of
    that has no gradient itself. Under `torch.func` torch computes it.
    """
    if _fuses(projected) and not transformed():
        return gated_product(projected, act)
    gate, value = projected.chunk(2, dim=-1)
    return ACTIVATIONS[act](gate) * value


def _fuses(projected: Tensor) -> bool:
    return projected.dtype in HALF and triton_runs(projected.device.type)


@torch.library.custom_op("cadenza::gated_product", mutates_args=())
def gated_product(projected: Tensor, act: str) -> Tensor:
    """`gated` in Triton, rounded once."""
    from cadenza.fused import gated_programs

    projected = projected.contiguous()
    output = _half(projected)
    _launch(
        gated_programs.forward, projected, output, width=output.shape[-1], numbers=output.numel(), act=act
    )
    return output


@torch.library.custom_op("cadenza::gated_product_backward", mutates_args=())
def gated_product_backward(upstream: Tensor, projected: Tensor, act: str) -> Tensor:
    """The gradient of `projected`."""
    from cadenza.fused import gated_programs

    upstream, projected = upstream.contiguous(), projected.contiguous()
    gradient = torch.empty_like(projected)
    width, numbers = upstream.shape[-1], upstream.numel()
    _launch(gated_programs.backward, upstream, projected, gradient, width=width, numbers=numbers, act=act)
    return gradient


def _launch(program: Any, *tensors: Tensor, width: int, numbers: int, act: str) -> None:
    if not numbers:
        return
    with torch.cuda.device_of(tensors[0]):  # Triton launches on the current device
        program[(-(-numbers // BLOCK),)](*tensors, width, numbers, ACT=act, BLOCK=BLOCK, num_warps=4)


def _half(projected: Tensor) -> Tensor:
    return projected.new_empty(*projected.shape[:-1], projected.shape[-1] // 2)


@gated_product.register_fake
def _(projected: Tensor, act: str) -> Tensor:
    return _half(projected)


@gated_product_backward.register_fake
def _(upstream: Tensor, projected: Tensor, act: str) -> Tensor:
    return torch.empty_like(projected, memory_format=torch.contiguous_format)


def _keep(ctx: Any, inputs: tuple[Tensor, str], output: Tensor) -> None:
    projected, ctx.act = inputs
    ctx.save_for_backward(projected)


def _gradient(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
    return gated_product_backward(upstream, *ctx.saved_tensors, ctx.act), None


gated_product.register_autograd(_gradient, setup_context=_keep)
