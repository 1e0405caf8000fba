"""How `document_ids` get from a batch to the base model: through Composer's wrapper and the model's head."""

from functools import partial
from typing import Any

from torch import Tensor

from cadenza.surgery.anchor import Anchor
from cadenza.surgery.attention import base_models, claim
from cadenza.surgery.engine import Site
from cadenza.surgery.parameters import set_attributes
from cadenza.surgery.retype import Edit, Undo, chain, mix


def take_document_ids(site: Site, packing: bool | Anchor) -> Undo | None:
    """Claim `packing` on a base model, or lead `document_ids` through a module on the way to one."""
    module: Any = site.module
    edits: list[Edit] = []
    if module in base_models(module):
        edits.append(partial(claim, module, packing=packing))
    elif module is site.host and base_models(module):
        edits.append(partial(mix, module, TakesDocumentIds))
    elif "model_forward_args" in vars(module) and base_models(module):
        # Composer's wrapper passes on what was in the signature when it was made; peft's, everything.
        names = {*module.model_forward_args, "document_ids"}
        edits.append(partial(set_attributes, module, model_forward_args=names))
    return chain(*edits) if edits else None


class TakesDocumentIds:
    """A model with a head that takes `document_ids` and hands them to its base model."""

    def forward(self, *args: Any, document_ids: Tensor | None = None, **kwargs: Any) -> Any:
        if document_ids is not None:
            kwargs["document_ids"] = document_ids
        return super().forward(*args, **kwargs)
