"""Passes `document_ids` on to the base model, through Composer's wrapper and through models with a head."""

import inspect
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from cadenza.attention.anchor import Anchor
from cadenza.attention.modules import base_models
from cadenza.attention.plan import claim, plan_of
from cadenza.attention.sequence_heads import UnpacksDocuments, reads_rows
from cadenza.surgery.engine import Site
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.retype import Mixin, Stage, Undo, bound, mix, stock_class

NAME = "document_ids"
SPANS = ("start_positions", "end_positions")


def take_document_ids(site: Site, packing: bool | Anchor) -> Iterator[Undo]:
    """Claim `packing` on a base model, or make a module that contains one take `document_ids`."""
    module: Any = site.module
    if module in base_models(module):
        yield claim(module, packing=packing)
    elif module is site.host and base_models(module):
        yield mix(module, UnpacksDocuments if reads_rows(module) else TakesDocumentIds)
    elif "model_forward_args" in vars(module) and base_models(module):
        yield pass_document_ids(module)


def pass_document_ids(wrapper: Any) -> Undo:
    """Let Composer's wrapper pass `document_ids` on, until no model in it takes them any more.

    It passes the arguments of the signature at its construction; peft passes all.
    """
    wrapper.model_forward_args = {*wrapper.model_forward_args, NAME}

    def undo() -> None:
        if not any(_takes(module) for module in wrapper.modules() if isinstance(module, PreTrainedModel)):
            wrapper.model_forward_args = wrapper.model_forward_args - {NAME}

    return undo


def _takes(model: Any) -> bool:
    """Whether a technique on `model` reads `document_ids`; with an open seam a base model merely could."""
    if (plan := plan_of(model)) is not None:
        return plan.packing is not None
    return NAME in inspect.signature(model.forward).parameters


class TakesDocumentIds(Mixin, of="sequence_packing or anchor_attention", stage=Stage.ATTENTION):
    """A model with a head by token, which passes `document_ids` on to its base model."""

    def forward(self, *args: Any, document_ids: Tensor | None = None, **kwargs: Any) -> Any:
        if document_ids is not None:
            _refuse_spans(self, args, kwargs)
            kwargs["document_ids"] = document_ids
        return super().forward(*args, **kwargs)


def _refuse_spans(host: Any, args: tuple, kwargs: dict[str, Any]) -> None:
    """Raise if a span is to be found, which the loss of the stock head looks for in the whole row."""
    named, _ = bound(host, args, kwargs)
    if found := [name for name in SPANS if named.get(name) is not None]:
        name = stock_class(host).__name__
        raise SurgeryError(
            f"document_ids: {name} looks for {found[0]} in the whole row; pass one document a row"
        )
