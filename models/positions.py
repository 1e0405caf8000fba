"""How long a sequence a model has learned positions for."""

from typing import Any

from torch import nn
from transformers import PreTrainedModel

OFFSET = 2  # rows that OPT's table has before position 0


def longest(model: nn.Module) -> int | None:
    """The longest sequence that the model in `model` has learned positions for; None: any length.

    A table of positions has about as many rows as the config states. Rotary and relative positions have none,
    nor has a model whose table a technique removed.
    """
    host: Any = next((module for module in model.modules() if isinstance(module, PreTrainedModel)), None)
    if host is None or (stated := getattr(host.config, "max_position_embeddings", None)) is None:
        return None
    tables = [module for module in host.modules() if _is_of_positions(module, stated)]
    tables = [table for table in tables if table is not host.get_input_embeddings()]
    return min((_usable(table, stated) for table in tables), default=None)


def _is_of_positions(module: nn.Module, stated: int) -> bool:
    if not isinstance(module, nn.Embedding) or module._parameters.get("weight") is None:
        return False
    return stated <= module.num_embeddings <= stated + OFFSET


def _usable(table: Any, stated: int) -> int:
    """RoBERTa's positions begin behind that of padding."""
    first = 0 if table.padding_idx is None else table.padding_idx + 1
    return min(stated, table.num_embeddings - first)
