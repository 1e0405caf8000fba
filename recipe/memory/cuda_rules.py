"""What an operation keeps on a CUDA device, for a step that is computed on shapes alone.

The shapes are those of a CPU, whose operations differ in three ways: autocast on CUDA computes more of them
in float32, dropout keeps its mask in bytes, and attention with dropout needs no matrix of weights.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from cadenza.losses.cross_entropy import CHUNK

# The part of autocast's list of float32 operations on CUDA that models of text and images call.
IN_FLOAT32: set[Callable] = {
    *(F.layer_norm, F.group_norm, F.softmax, F.log_softmax, F.cross_entropy, F.mse_loss, F.softplus),
    *(torch.softmax, torch.log_softmax, torch.pow, torch.exp, torch.log, torch.rsqrt, torch.cumsum),
    *(Tensor.softmax, Tensor.log_softmax, Tensor.pow, Tensor.exp, Tensor.log, Tensor.rsqrt, Tensor.cumsum),
}
SPARSE = 6  # the place of this argument of `F.embedding`


class CudaRules(TorchFunctionMode):
    """Computes what is called within it by the rules of a CUDA device."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        options = dict(kwargs or {})
        if func is F.dropout:
            return _dropout(*args, **options)
        if func is F.scaled_dot_product_attention:
            options["dropout_p"] = 0.0  # on a CPU dropout needs the matrix of weights
        elif func is F.embedding:
            args = args[:SPARSE]  # sparse_prediction makes the gradient sparse on a CPU alone
        elif func in IN_FLOAT32 and torch.is_autocast_enabled("cpu"):
            args = tuple(_wide(each) for each in args)
        return func(*args, **options)


@contextmanager
def of_cuda() -> Iterator[None]:
    """The rules of a CUDA device, with chunks of cross-entropies as large as there."""
    small = CHUNK["cpu"]
    CHUNK["cpu"] = CHUNK["cuda"]
    try:
        with CudaRules():
            yield
    finally:
        CHUNK["cpu"] = small


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    return torch.native_dropout(input, p, True)[0] if training and p else input


def _wide(value: Any) -> Any:
    half = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if half else value
