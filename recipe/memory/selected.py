"""How many rows an operation selects by values, which shapes don't say."""

import math
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten: Any = torch.ops.aten


class Selected(TorchDispatchMode):
    """Lets `nonzero` find `share` of the places, those of labelled tokens, and a mask select all of its."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        if func is aten.nonzero.default:
            found = math.ceil(self.share * args[0].numel())
            return torch.empty(found, args[0].ndim, dtype=torch.long)
        if func is aten.index.Tensor and len(args[1]) == 1 and args[1][0].dtype == torch.bool:
            (mask,) = args[1]
            return args[0].new_empty(mask.numel(), *args[0].shape[mask.ndim :])
        return func(*args, **(kwargs or {}))
