"""Linear layers of a number of rows that returns.

In bfloat16 a CPU's library prepares a product anew for each number of rows, and unpadded batches have another
number each: that took 27 ms of a batch of 165 ms. Rows are added up to a multiple of 64, and their outputs
are left out, so no other row and no gradient changes.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from cadenza.surgery.runtime import autocast_dtype

MULTIPLE = 64


class RoundedRows(TorchFunctionMode):
    """Rounds the rows of each linear layer up, where autocast on a CPU computes it."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        return (linear if func is F.linear else func)(*args, **(kwargs or {}))


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` of `input` (..., in) on a multiple of 64 rows, the last of which are zeros."""
    rows = input.shape[:-1].numel()
    dtype, missing = autocast_dtype(input), -rows % MULTIPLE
    if not missing or dtype is None or torch.compiler.is_compiling():
        return F.linear(input, weight, bias)
    padded = F.pad(input.reshape(rows, input.shape[-1]).to(dtype), (0, 0, 0, missing))
    return F.linear(padded, weight, bias)[:rows].view(*input.shape[:-1], weight.shape[0])
