"""Rotary positions taken away: a rotary embedding that rotates nothing, and its claim of `positions`."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.retype import Mixin, Stage, stock_class


@dataclass(frozen=True)
class NoRotation:
    """The claim of an attention without positions: no bias, and no rotation."""

    def __repr__(self) -> str:
        return "drop_rope"


class WithoutRotation(Mixin, of="alibi or drop_rope", stage=Stage.ATTENTION):
    """A rotary embedding that rotates by the angle zero.

    The stock tables give shape and dtype alone, so a factor that a rope type puts on them (YaRN, longrope)
    goes with the angles. The identity is the same in each layout of the columns, and of a part of a head.
    """

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor] | Tensor:
        tables = super().forward(*args, **kwargs)
        if isinstance(tables, tuple) and len(tables) == 2:
            return torch.ones_like(tables[0]), torch.zeros_like(tables[1])
        if isinstance(tables, Tensor) and tables.is_complex():  # cos + i sin
            return torch.ones_like(tables)
        rotary: Any = self
        name, kind = stock_class(rotary).__name__, type(tables).__name__
        raise SurgeryError(f"{name} returns {kind}, not cos and sin: its rotation can't be taken away")
