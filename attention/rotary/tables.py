"""Exact rotary positions (Su et al., arXiv 2104.09864).

1. A stock rotary embedding, built anew, computes the frequencies from the config, in float32.
2. `tables` computes the angles, their cos and sin from integer positions, in float64.
3. `layout` says in which order the stock rotary embedding returns them.

The score of two rotated vectors depends only on the distance of their positions if the angles are right. The
obvious way rounds before: a frequency rounded to bfloat16 is off by up to 0.4 %, which is hundreds of radians
at position 131,071.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.retype import stock_class

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "halves": lambda table: torch.cat([table, table], dim=-1),
    "pairs": lambda table: table.repeat_interleave(2, dim=-1),
    "single": lambda table: table,
}
"""From a column for each frequency to the columns of a stock table."""

PROBED = 8  # positions, of a comparison with stock tables

Frequencies = tuple[tuple[float, ...], float]
"""The inverse frequencies, and the scaling of cos and sin: plain numbers, which no cast reaches."""


@dataclass(frozen=True)
class ExactRope:
    """The claim of an exact rotation.

    Args:
        per_document: count positions from the start of each document.
    """

    per_document: bool

    def __repr__(self) -> str:
        return "bf16_safe_rope"


def is_rotary(module: Any) -> bool:
    """Whether `module` is a rotary embedding of transformers, with frequencies from a config."""
    named = any(name.endswith("inv_freq") for name in module._buffers)
    return named and hasattr(module, "config") and stock_class(module).__module__.startswith("transformers.")


def layer_types(rotary: Any) -> list[str | None]:
    """The layer types that have frequencies of their own; [None] if all layers share them."""
    kind = getattr(rotary, "rope_type", None)
    return list(kind) if isinstance(kind, dict) else [None]


def by_length(rotary: Any, layer_type: str | None) -> bool:
    """Whether the frequencies depend on the longest position."""
    kind: Any = getattr(rotary, "rope_type", "default")
    name = kind if layer_type is None else kind[layer_type]
    return "dynamic" in name or name == "longrope"


def refuse_scaling_by_length(base: Any) -> None:
    """Raise if rotary frequencies of `base` depend on the longest position in a batch.

    Then a document computes something else without the padding beside it, or in a packed row.
    """
    for rotary in filter(is_rotary, base.modules()):
        if any(by_length(rotary, layer_type) for layer_type in layer_types(rotary)):
            name = stock_class(base).__name__
            kind = rotary.rope_type
            raise SurgeryError(
                f"{name} has rope type {kind!r}, whose frequencies follow the longest position in a batch; "
                "choose a fixed rope type"
            )


def tables(positions: Tensor, inverse: tuple[float, ...], scaling: float) -> tuple[Tensor, Tensor]:
    """cos and sin of `positions` (batch, tokens), each (batch, tokens, len(inverse)), float64."""
    inv_freq = torch.tensor(inverse, dtype=torch.float64, device=positions.device)
    angles = positions[..., None].double() * inv_freq
    return angles.cos() * scaling, angles.sin() * scaling


def new_rotary(rotary: Any) -> Any:
    """The stock rotary embedding of the config of `rotary`, on the CPU."""
    with torch.device("cpu"):
        return stock_class(rotary)(rotary.config)


def frequencies(rotary: Any, layer_type: str | None = None, longest: int | None = None) -> Frequencies:
    """The frequencies that the class of `rotary` computes from its config.

    Args:
        longest: the number of positions, for rope types whose frequencies depend on it.
    """
    new: Any = new_rotary(rotary)
    of_type = () if layer_type is None else (layer_type,)
    if longest is not None:
        new(torch.zeros(1, device="cpu"), torch.tensor([[longest - 1]], device="cpu"), *of_type)
    prefix = "".join(f"{name}_" for name in of_type)
    return (
        tuple(getattr(new, f"{prefix}inv_freq").tolist()),
        float(getattr(new, f"{prefix}attention_scaling")),
    )


def layout(rotary: nn.Module) -> str:
    """The name in `LAYOUTS` of the order of columns in the tables of `rotary`, by comparison.

    Raises:
        SurgeryError: its tables aren't cos and sin of position times frequency in any of these orders.
    """
    why = "they are in no known order"
    try:
        if any(True for _ in rotary.parameters()):
            raise TypeError("the frequencies are learned")
        with torch.device("cpu"):
            for name in LAYOUTS:
                if all(_in_order(name, rotary, each) for each in layer_types(rotary)):
                    return name
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
    raise SurgeryError(
        f"{stock_class(rotary).__name__} doesn't return cos and sin of position times frequency, as "
        f"bf16_safe_rope requires ({why})"
    )


def _in_order(name: str, rotary: nn.Module, layer_type: str | None) -> bool:
    of_type = () if layer_type is None else (layer_type,)
    x, positions = torch.zeros(1, dtype=torch.float32), torch.arange(PROBED)[None]
    stock = new_rotary(rotary)(x, positions, *of_type)
    exact = tables(positions, *frequencies(rotary, layer_type, PROBED))
    if not isinstance(stock, tuple) or len(stock) != 2:
        raise TypeError(f"it returns {type(stock).__name__}")
    laid = [LAYOUTS[name](table).float() for table in exact]
    return all(
        a.shape == b.shape and torch.allclose(a, b, atol=1e-5) for a, b in zip(stock, laid, strict=True)
    )


def refuse_static(cache: Any, claimed: str) -> None:
    """Raise if `cache` is static, since its last key isn't the newest; `claimed` names what that breaks."""
    if cache is not None and getattr(cache, "is_compileable", False):
        raise SurgeryError(
            f"{type(cache).__name__}: {claimed} counts the positions of cached keys back from the last key, "
            "which isn't the newest one in a static cache; use DynamicCache"
        )
