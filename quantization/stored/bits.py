"""Statistics as integers that hold their bits: casts of the model, as `model.half()`, round floats alone."""

import torch
from torch import Tensor

INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}


def as_bits(floats: Tensor) -> Tensor:
    """The bits of `floats`, as integers of the same size."""
    return floats.view(INTEGERS[floats.element_size()])


def as_floats(bits: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The numbers of `dtype` that `bits` are."""
    return bits.view(dtype)
