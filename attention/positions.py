"""The positions that the stock model would use in a call, and the cache that they follow."""

from typing import Any

import torch
from torch import Tensor

from cadenza.surgery.retype import bound

CACHES = ("past_key_values", "cache")  # transformers 5.24 renames the first to the second, and takes both


def cache_of(model: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """The cache of keys and values that a call of `model` gets; None if it gets none."""
    named, others = bound(model, args, kwargs)
    given = {**others, **named}
    return next((given[name] for name in CACHES if given.get(name) is not None), None)


def stock_positions(model: Any, named: dict[str, Any], tokens: Tensor) -> Tensor:
    """(batch, length), the positions in a call with the arguments `named`, without a cache."""
    batch, length = tokens.shape[:2]
    given, ids, padding = named.get("position_ids"), named.get("input_ids"), _roberta_padding(model)
    if given is not None:
        return given.expand(batch, length)
    if padding is not None and ids is not None:  # RoBERTa counts the tokens that aren't padding
        real = ids != padding
        return real.cumsum(1) * real + padding
    first = first_position(model)
    return torch.arange(first, first + length, device=tokens.device).expand(batch, length)


def first_position(model: Any) -> int:
    """The position of the first token: 0, or the one after the padding id in RoBERTa and similar models."""
    padding = _roberta_padding(model)
    return 0 if padding is None else padding + 1


def _roberta_padding(model: Any) -> int | None:
    for module in model.children():
        if hasattr(module, "create_position_ids_from_input_ids"):
            return module.padding_idx
    return None
