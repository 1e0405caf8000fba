"""Learned positions taken away: a table without rows, and embeddings that look nothing up in it."""

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from cadenza.surgery.parameters import set_attributes, take_parameter
from cadenza.surgery.retype import Mixin, Stage, Undo, mix


class NoPositions(Mixin, of="alibi or rotary", stage=Stage.ATTENTION):
    """A position table without rows: it returns zero for every position."""

    def forward(self, position_ids: Tensor) -> Tensor:
        # A 0-dim zero broadcasts over any length and promotes no dtype.
        return torch.zeros((), device=position_ids.device)


class WithoutPositions(Mixin, of="alibi or rotary", stage=Stage.ATTENTION):
    """Embeddings that look up no positions, so that sequences may have any length."""

    def forward(self, *args, **kwargs) -> Tensor:
        stock_forward = super().forward
        bound = inspect.signature(stock_forward).bind(*args, **kwargs)
        inputs = bound.arguments
        tokens = inputs["inputs_embeds"] if inputs.get("input_ids") is None else inputs["input_ids"]
        inputs["position_ids"] = torch.zeros((1, tokens.shape[1]), dtype=torch.long, device=tokens.device)
        return stock_forward(*bound.args, **bound.kwargs)


def take_positions(path: str, module: Any) -> Iterator[Undo]:
    """Take the learned positions from `module`, if it is a table of them or looks them up."""
    if _is_position_table(path, module):
        yield set_attributes(module, _is_hf_initialized=True)  # transformers must not initialize a None
        yield take_parameter(module, "weight")
        yield mix(module, NoPositions)
    elif isinstance(getattr(module, "position_embeddings", None), nn.Embedding):
        yield mix(module, WithoutPositions)


def _is_position_table(path: str, module: nn.Module) -> bool:
    return path.rpartition(".")[2] in ("position_embeddings", "wpe") and isinstance(module, nn.Embedding)
