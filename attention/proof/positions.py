"""What a model of no tested family proves whose positions a technique takes away, as in `claims`:

1. `forgets_positions`: if every token sees every other one, the order of tokens doesn't matter.
2. `ignores_position_ids`: no `position_ids` matter, however far; `looks_nothing_up` is stricter.
"""

import inspect
from contextlib import suppress

import torch

from cadenza.attention.modules import attention_modules
from cadenza.attention.proof.claims import LENGTHS, same
from cadenza.attention.proof.subject import Subject
from cadenza.attention.proof.watch import FAR, Watch
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.retype import stock_class


class LookupFailed(SurgeryError):
    """Far `position_ids` are outside of a table of the model."""


POSITIONS_REMAIN = "positions remain, which this technique doesn't know how to remove"


def forgets_positions(subject: Subject) -> None:
    """If every token sees every other one, the order of tokens doesn't matter."""
    ids = subject.tokens(1, max(LENGTHS))
    seen = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device)
    order = subject.draw.weights(ids.shape[1]).argsort().to(ids.device)  # not reversed: distances would stay
    there, shuffled = (subject.stock(x, Watch(seen=seen)) for x in (ids, ids[:, order]))
    same(shuffled, there[:, order], POSITIONS_REMAIN)


def ignores_position_ids(subject: Subject) -> None:
    """No `position_ids` matter, however far, nor a place that a model counts itself.

    A model that looks something up by place, in a table that ends, is not asked further.
    """
    with suppress(LookupFailed):
        looks_nothing_up(subject)


def looks_nothing_up(subject: Subject) -> None:
    """The same; a model that looks something up by place is refused, such as blocks of keys (MiniMax-M3)."""
    layers = attention_modules(subject.base)
    if tuned := [layer for layer in layers if getattr(layer, "attn_temperature_tuning", False)]:
        name = type(tuned[0]).__name__
        raise SurgeryError(f"{name} scales queries by position: {POSITIONS_REMAIN}")
    if "position_ids" not in inspect.signature(stock_class(subject.base).forward).parameters:
        return
    ids = subject.tokens(1, max(LENGTHS))
    mask = torch.ones_like(ids)  # without one transformers takes gaps for the boundaries of documents
    far = FAR // max(LENGTHS) * torch.arange(ids.shape[1], device=ids.device)[None]
    there = subject.stock(ids, attention_mask=mask)
    try:
        moved = subject.stock(ids, attention_mask=mask, position_ids=far)
    except (IndexError, RuntimeError) as error:
        name = stock_class(subject.base).__name__
        raise LookupFailed(f"{name} looks something up by position: {POSITIONS_REMAIN}") from error
    same(moved, there, POSITIONS_REMAIN)
