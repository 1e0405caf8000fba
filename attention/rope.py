"""Exact rotary positions (Su et al., arXiv 2104.09864).

1. A stock rotary embedding computes the frequencies from the config, in float32.
2. `tables` computes the angles, their cos and sin from integer positions, in float64.
3. `rotate_pairs` rotates query and key in float32, and rounds once.

The score of two rotated vectors depends only on the distance of their positions if the angles are right. The
obvious way rounds before: a frequency rounded to bfloat16 is off by up to 0.4 %, which is hundreds of radians
at position 131,071. The cost: keys in a cache aren't rotated yet, so they are rotated again for each token.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.runtime import uncompiled

BY_LENGTH = ("dynamic", "longrope")  # rope types whose frequencies depend on the longest position


@dataclass(frozen=True)
class ExactRope:
    """The claim of an exact rotation.

    Args:
        rotary: the class of the stock rotary embedding, which is built anew from the config.
        per_document: count positions from the start of each document.
    """

    rotary: type
    per_document: bool

    def __repr__(self) -> str:
        return "bf16_safe_rope"


class Rotation:
    """The positions of one call of a model, and the tables of cos and sin, which all layers share.

    A plain object, because FSDP casts the tensors in a layer's arguments, also those in containers it knows.

    Args:
        positions: (1 or batch, q), integers, of the queries and of the last q keys.
    """

    def __init__(self, positions: Tensor) -> None:
        self.positions = positions
        self._tables: dict[Any, tuple[Tensor, Tensor]] = {}

    def rotate(
        self, rope: ExactRope, config: Any, query: Tensor, key: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """`query` (batch, heads, q, head_dim) and `key` (batch, heads, k, head_dim), rotated, as `dtype`.

        The k - q cached keys have the positions right before the first query.
        """
        wide = torch.promote_types(query.dtype, torch.float32)
        cos, sin = self._exact(rope, config, key.shape[-2], wide)  # (1 or batch, 1, k, head_dim / 2)
        rotate: Any = _Rotate.apply
        q = query.shape[-2]
        return rotate(query, cos[:, :, -q:], sin[:, :, -q:], dtype), rotate(key, cos, sin, dtype)

    @uncompiled  # later layers reuse the tables
    def _exact(self, rope: ExactRope, config: Any, keys: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        name = rope, keys, dtype
        if name not in self._tables:
            longest = int(self.positions.max()) + 1 if rope_type(config) in BY_LENGTH else None
            cos, sin = tables(self._positions(keys), *frequencies(rope.rotary, config, longest))
            self._tables[name] = cos.to(dtype), sin.to(dtype)
        return self._tables[name]

    def _positions(self, keys: int) -> Tensor:
        cached = keys - self.positions.shape[-1]
        if cached == 0:
            return self.positions
        before = torch.arange(-cached, 0, device=self.positions.device)
        return torch.cat([self.positions[:, :1] + before, self.positions], dim=-1)


def tables(positions: Tensor, inverse: tuple[float, ...], scaling: float) -> tuple[Tensor, Tensor]:
    """cos and sin of `positions` (batch, tokens), each (batch, 1, tokens, len(inverse)), float64."""
    inv_freq = torch.tensor(inverse, dtype=torch.float64, device=positions.device)
    angles = positions[:, None, :, None].double() * inv_freq
    return angles.cos() * scaling, angles.sin() * scaling


def frequencies(rotary: type, config: Any, longest: int | None = None) -> tuple[tuple[float, ...], float]:
    """The inverse frequencies that `rotary` computes from `config`, and the scaling of cos and sin.

    Args:
        longest: the number of positions, for rope types whose frequencies depend on it.
    """
    return _frequencies(rotary, type(config), json.dumps(config.to_dict(), default=str), longest)


@lru_cache(maxsize=64)
def _frequencies(
    rotary: Any, config: Any, fields: str, longest: int | None
) -> tuple[tuple[float, ...], float]:
    with torch.device("cpu"):
        module = rotary(config.from_dict(json.loads(fields)))
        if longest is not None:
            module(torch.zeros(1), torch.tensor([[longest - 1]]))
    return tuple(module.inv_freq.tolist()), float(module.attention_scaling)


def refuse_static(cache: Any, claimed: str) -> None:
    """Raise if `cache` is static, since its last key isn't the newest; `claimed` names what that breaks."""
    if cache is not None and getattr(cache, "is_compileable", False):
        raise SurgeryError(
            f"{type(cache).__name__}: {claimed} counts the positions of cached keys back from the last key, "
            "which isn't the newest one in a static cache; use DynamicCache"
        )


def rope_type(config: Any) -> str:
    """Transformers' name for the scaling of the frequencies."""
    return (config.rope_parameters or {}).get("rope_type", "default")


class _Rotate(torch.autograd.Function):
    """`rotate_pairs`; the gradient is rotated by the negative angles, in float32 as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.dtype = x.dtype
        return rotate_pairs(x, cos, sin, dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        cos, sin = ctx.saved_tensors
        return rotate_pairs(grads[0], cos, -sin, ctx.dtype), None, None, None


def rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype) -> Tensor:
    """Rotate the pairs (x_i, x_{i + d / 2}) of `x` (..., d) by tables (..., d / 2), in their dtype.

    The only rounding is that of the result, to `dtype`.
    """
    a, b = x.to(cos.dtype).chunk(2, dim=-1)
    # `to` before `cat`: torch 2.11 compiles a wrong backward if the output of a `to` may be its input.
    return torch.cat([half.to(dtype) for half in (a * cos - b * sin, b * cos + a * sin)], dim=-1)
