"""Exact rotary positions: frequencies from the config, angles in float64, rotation in float32, one rounding.

Rotary embeddings: Su et al., arXiv 2104.09864. The score of two rotated vectors depends on the distance of
their positions alone, as long as the angles are right: a frequency rounded to bfloat16 is off by up to 0.4 %,
which is hundreds of radians at position 131,071.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from cadenza.surgery.compiling import uncompiled
from cadenza.surgery.errors import SurgeryError

BY_LENGTH = ("dynamic", "longrope")  # rope types whose frequencies depend on the longest position


@dataclass(frozen=True)
class ExactRope:
    """What an attention rotates by: the class of transformers that computes the frequencies, and from where.

    Args:
        rotary: a stock rotary embedding, built anew from the config: nothing of it stands on the model.
        per_document: positions are counted from the start of each document.
    """

    rotary: type
    per_document: bool

    def __repr__(self) -> str:
        return f"rope by {self.rotary.__name__}"


class Rotation:
    """The positions of one call of a model, and their tables, which all layers share.

    A plain object: FSDP casts the tensors among a layer's arguments, and what it knows how to unpack.

    Args:
        positions: (1 or batch, q), integers: those of the queries, and of the last q keys.
    """

    def __init__(self, positions: Tensor) -> None:
        self.positions = positions
        self._tables: dict[Any, tuple[Tensor, Tensor]] = {}

    def rotate(
        self, rope: ExactRope, config: Any, query: Tensor, key: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """`query` (batch, heads, q, head_dim) and `key` (batch, heads, k, head_dim), rotated, as `dtype`.

        Keys from before this call, in a cache, stand right before the first query.
        """
        tables = self._of(rope, config, key.shape[-2], torch.promote_types(query.dtype, torch.float32))
        q = query.shape[-2]
        turned: Any = _Turn.apply
        ours = [table[:, :, -q:] for table in tables]
        return turned(query, *ours, dtype), turned(key, *tables, dtype)

    @uncompiled  # the tables are kept for the layers to come
    def _of(self, rope: ExactRope, config: Any, keys: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        name = rope, keys, dtype
        if name not in self._tables:
            longest = int(self.positions.max()) + 1 if rope_type(config) in BY_LENGTH else None
            exact = tables(self._positions(keys), *frequencies(rope.rotary, config, longest))
            self._tables[name] = exact[0].to(dtype), exact[1].to(dtype)
        return self._tables[name]

    def _positions(self, keys: int) -> Tensor:
        earlier = keys - self.positions.shape[-1]
        if earlier == 0:
            return self.positions
        back = torch.arange(-earlier, 0, device=self.positions.device)
        return torch.cat([self.positions[:, :1] + back, self.positions], dim=-1)


def tables(positions: Tensor, inverse: tuple[float, ...], scaling: float) -> tuple[Tensor, Tensor]:
    """cos and sin of (batch, tokens) positions, (batch, 1, tokens, len(inverse)) float64."""
    inv_freq = torch.tensor(inverse, dtype=torch.float64, device=positions.device)
    angles = positions[:, None, :, None].double() * inv_freq
    return angles.cos() * scaling, angles.sin() * scaling


def frequencies(rotary: type, config: Any, longest: int | None = None) -> tuple[tuple[float, ...], float]:
    """The inverse frequencies that `rotary` computes from `config`, and the scaling of cos and sin.

    Args:
        longest: the number of positions, for rope types that scale by it.
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


def refuse_static(cache: Any) -> None:
    """Raise for a cache whose keys don't end with the newest one."""
    if cache is not None and getattr(cache, "is_compileable", False):
        raise SurgeryError(
            f"{type(cache).__name__}: bf16_safe_rope rotates cached keys by their place from the end, which "
            "a static cache doesn't keep; use DynamicCache"
        )


def rope_type(config: Any) -> str:
    """Transformers' name for how the frequencies are scaled."""
    return (config.rope_parameters or {}).get("rope_type", "default")


class _Turn(torch.autograd.Function):
    """Pairs (x_i, x_{i + d/2}) turned by their angles in float32; back by the negative ones."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.dtype = x.dtype
        return turned(x, cos, sin, dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        cos, sin = ctx.saved_tensors
        return turned(grads[0], cos, -sin, ctx.dtype), None, None, None


def turned(x: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype) -> Tensor:
    """`x` (..., head_dim) turned by tables (..., head_dim / 2) in their dtype, rounded once, to `dtype`."""
    a, b = x.to(cos.dtype).chunk(2, dim=-1)
    # Rounded before `cat`: torch 2.11 compiles a wrong backward for an output that `to` may leave as it is.
    return torch.cat([half.to(dtype) for half in (a * cos - b * sin, b * cos + a * sin)], dim=-1)
