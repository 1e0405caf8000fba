"""Rotary positions for a model that has none of its own (Su et al., arXiv 2104.09864, section 3.4.2).

1. A base model computes cos and sin of its positions once a call, for each theta, in float64 (`turns`).
2. The layers hand them on to attention as a keyword argument, in a plain object, which FSDP doesn't cast.
3. `attend` rotates query and key in float32 or wider, and rounds once to the dtype of the model (`Rotation`).

Column i of a head is turned together with column i + head_dim / 2, as in Llama and ModernBERT. The inverse
frequencies are rounded to float32, as transformers has them, so weights mean the same there and here.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from cadenza.attention.rotary.tables import LAYOUTS, tables
from cadenza.surgery.errors import SurgeryError

ARGUMENT = "rotary"  # the keyword argument of attention
Turns = dict[float, tuple[Tensor, Tensor]]


class Positions:
    """cos and sin by theta, each (batch, 1, tokens, head_dim), float32 or wider."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns


@dataclass(frozen=True)
class Rotation:
    """The claim of rotary positions.

    Args:
        theta: the base of the frequencies.
        window_theta: that of layers with a window; None: `theta`.
    """

    theta: float
    window_theta: float | None = None
    per_document: ClassVar[bool] = False  # positions count as those of the stock model do

    def positions(self, positions: Tensor, head_dim: int, dtype: torch.dtype) -> Positions:
        """What the layers need of `positions` (batch, tokens) in a model of `dtype`."""
        dtype = torch.promote_types(dtype, torch.float32)
        thetas = {self.theta, self.window_theta or self.theta}
        return Positions({theta: _turns(positions, theta, head_dim, dtype) for theta in thetas})

    def rotate(self, query: Tensor, key: Tensor, positions: Any, windowed: bool) -> tuple[Tensor, Tensor]:
        """`query` and `key` (batch, heads, tokens, head_dim) at `positions`, in their own dtype.

        Raises:
            SurgeryError: `positions` didn't arrive.
        """
        if not isinstance(positions, Positions):
            raise SurgeryError("rotary: an attention module got no positions; call the whole model")
        cos, sin = positions.turns[(self.window_theta if windowed else None) or self.theta]
        return _rotated(query, cos, sin), _rotated(key, cos, sin)

    def __repr__(self) -> str:
        return "rotary"


def _turns(positions: Tensor, theta: float, head_dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    columns = torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu") / head_dim
    inverse = tuple(
        (1.0 / theta**columns).tolist()
    )  # float32 values, which transformers computes in this way
    cos, sin = (LAYOUTS["halves"](table.to(dtype))[:, None] for table in tables(positions, inverse, 1.0))
    return cos, sin


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    low, high = x.chunk(2, dim=-1)
    return (x * cos + torch.cat([-high, low], dim=-1) * sin).to(x.dtype)
