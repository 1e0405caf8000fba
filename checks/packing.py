"""How a batch tells a model its documents: each way makes the arguments of the model's `forward`."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cadenza.checks.calls import Subject
from cadenza.checks.findings import NotCheckable
from cadenza.checks.gradients import by_embedding
from cadenza.probes.sequences import PADDING, Draw, positions

Inputs = dict[str, Any]
Make = Callable[[Tensor, Tensor], Inputs]


def way(by: str | Make, subject: Subject, draw: Draw) -> Make:
    """The function that makes a model's inputs from `input_ids` and `documents`, each (rows, length)."""
    if callable(by):
        return by
    if by == "document_ids":
        return lambda ids, documents: {"input_ids": ids, "document_ids": documents}
    if by == "position_ids":
        return _restarting
    if by == "attention_mask":
        return _Dense(subject, sees_ahead(subject, draw))
    ways = "'document_ids', 'position_ids', 'attention_mask' or a function of (input_ids, documents)"
    raise NotCheckable(f"by={by!r}; choose {ways}")


def name_of(by: str | Make) -> str:
    """How an error and a result name a way."""
    return by if isinstance(by, str) else getattr(by, "__name__", type(by).__name__)


def sees_ahead(subject: Subject, draw: Draw) -> bool:
    """Whether a token's output depends on later tokens: so in an encoder. By a gradient, which is exact."""
    ids = draw.tokens(1, 8)
    everything = torch.ones_like(ids, dtype=torch.bool)
    weights = draw.weights(*subject.by_token(ids.shape, input_ids=ids)[0, 0].shape)

    def first(output: Tensor) -> Tensor:
        return (output[0, 0].flatten() * weights.to(output)).sum()

    return bool(by_embedding(subject, everything, first, {"input_ids": ids})[0, 1:].max() > 0)


def _restarting(ids: Tensor, documents: Tensor) -> Inputs:
    """What transformers' `DataCollatorWithFlattening` returns, but in several rows."""
    if bool((documents == PADDING).any()):
        raise NotCheckable("position_ids can't tell padding; give each row of `lengths` the same sum")
    return {"input_ids": ids, "position_ids": positions(documents)}


class _Dense:
    """A mask (rows, 1, length, length), 0 where a token sees another, and positions that restart."""

    def __init__(self, subject: Subject, ahead: bool) -> None:
        self.ahead, self.takes_positions = ahead, "position_ids" in subject.arguments
        self.dtype = subject.embeddings[0].weight.dtype

    def __call__(self, ids: Tensor, documents: Tensor) -> Inputs:
        seen = documents[:, None, :, None] == documents[:, None, None, :]
        if not self.ahead:
            seen = seen.tril()
        mask = torch.zeros(seen.shape, dtype=self.dtype).masked_fill(~seen, torch.finfo(self.dtype).min)
        own = {"position_ids": positions(documents)} if self.takes_positions else {}
        return {"input_ids": ids, "attention_mask": mask, **own}
