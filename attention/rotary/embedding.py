"""Where exact rotary positions enter a stock model: its rotary embeddings and its attention modules.

1. A rotary embedding returns `Tables` in float32 in place of a tuple in the model's dtype (`ExactTables`).
2. The layers hand them on to attention. FSDP2 casts the tensors in a layer's arguments, also those in
   containers; it doesn't look into a plain object.
3. An attention module gives the tables to its stock `forward` (`RotatedExactly`). Query and key are promoted
   to float32 by the product with the tables, and rounded once: the key before a cache takes it, both before
   the kernel (`cadenza.attention.seam`).

So a cache holds rotated keys in the model's dtype, as it does with stock code. Code that reads the tables in
any other place raises a TypeError, because `Tables` is no tuple.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from cadenza.attention.rotary.tables import LAYOUTS, Frequencies, by_length, frequencies, layer_types, tables
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.retype import Mixin, Stage
from cadenza.surgery.runtime import uncompiled


class Tables:
    """cos and sin (batch, tokens, columns), float32 or wider, in the columns of the stock tables."""

    def __init__(self, cos: Tensor, sin: Tensor) -> None:
        self.cos, self.sin = cos, sin


class ExactTables(Mixin, of="bf16_safe_rope", stage=Stage.ATTENTION):
    """A rotary embedding that returns `Tables`.

    Attributes `exact_layout` (a name in `LAYOUTS`) and `exact_frequencies` (by layer type; None where they
    depend on the longest position) are set together with the class.
    """

    exact_layout: str
    exact_frequencies: dict[str | None, Frequencies | None]

    def forward(self, x: Tensor, position_ids: Tensor, layer_type: str | None = None) -> Tables:
        if position_ids.ndim != 2 or position_ids.is_floating_point():
            shape = tuple(position_ids.shape)
            raise SurgeryError(
                f"bf16_safe_rope needs one integer position a token, not {position_ids.dtype} {shape}"
            )
        known = self.exact_frequencies[layer_type]
        exact = tables(position_ids, *(known or _of_length(self, position_ids, layer_type)))
        dtype = torch.promote_types(x.dtype, torch.float32)
        return Tables(*(LAYOUTS[self.exact_layout](table.to(dtype)) for table in exact))


@uncompiled  # it builds a module
def _of_length(rotary: Any, positions: Tensor, layer_type: str | None) -> Frequencies:
    longest = positions.shape[-1] if positions.is_meta else int(positions.max()) + 1
    return frequencies(rotary, layer_type, longest)


class RotatedExactly(Mixin, of="bf16_safe_rope", stage=Stage.ATTENTION):
    """An attention module that rotates query and key by `Tables`."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        given = kwargs.get("position_embeddings")
        if isinstance(given, Tables):
            kwargs["position_embeddings"] = given.cos, given.sin
        elif given is not None:
            raise SurgeryError("an attention module got no exact positions; call the whole model")
        kwargs = {name: RoundedKeys(x) if isinstance(x, Cache) else x for name, x in kwargs.items()}
        return super().forward(*args, **kwargs)


class RoundedKeys:
    """A cache that takes what was rotated in the dtype of what wasn't, as it gets both from the stock model.

    Rotated are the keys, or with latent attention the second tensor, next to the latents.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def update(self, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        dtype = min(key.dtype, value.dtype, key=lambda each: each.itemsize)
        return self._cache.update(key.to(dtype), value.to(dtype), *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)


def by_layer_type(rotary: Any) -> dict[str | None, Frequencies | None]:
    """The `exact_frequencies` of `rotary`."""
    kinds = layer_types(rotary)
    return {kind: None if by_length(rotary, kind) else frequencies(rotary, kind) for kind in kinds}
