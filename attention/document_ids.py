"""Passes `document_ids` on to the base model, through Composer's wrapper and through models with a head."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from cadenza.attention.anchor import Anchor
from cadenza.attention.modules import base_models
from cadenza.attention.plan import claim
from cadenza.surgery.engine import Site
from cadenza.surgery.parameters import set_attributes
from cadenza.surgery.retype import Mixin, Stage, Undo, mix


def take_document_ids(site: Site, packing: bool | Anchor) -> Iterator[Undo]:
    """Claim `packing` on a base model, or make a module that contains one pass `document_ids` on."""
    module: Any = site.module
    if module in base_models(module):
        yield claim(module, packing=packing)
    elif module is site.host and base_models(module):
        yield mix(module, TakesDocumentIds)
    elif "model_forward_args" in vars(module) and base_models(module):
        # Composer's wrapper passes the arguments of the signature at its construction; peft passes all.
        names = {*module.model_forward_args, "document_ids"}
        yield set_attributes(module, model_forward_args=names)


class TakesDocumentIds(Mixin, of="sequence_packing or anchor_attention", stage=Stage.ATTENTION):
    """A model with a head that passes `document_ids` on to its base model."""

    def forward(self, *args: Any, document_ids: Tensor | None = None, **kwargs: Any) -> Any:
        if document_ids is not None:
            kwargs["document_ids"] = document_ids
        return super().forward(*args, **kwargs)
