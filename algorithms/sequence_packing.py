"""Sequence packing: several documents in one row, which don't see each other."""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from cadenza.surgery.attention import base_models, claim, open_seam
from cadenza.surgery.engine import Site, Surgery
from cadenza.surgery.ledger import Stage
from cadenza.surgery.parameters import set_attributes
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Edit, Undo, chain, mix


@dataclass(repr=False, eq=False)
class SequencePacking(Surgery):
    """Lets a model take rows of several documents, each computed as if it stood alone.

    A batch brings `document_ids` (batch, length), 1, 2, ... for the documents of a row and -1 for padding.
    Attention stays within a document, positions start anew in each: outputs and gradients are those of the
    documents alone. (Stock transformers encoders see across documents without a word; packing that leaks cost
    NeoBERT GLUE points, arXiv 2502.19587.) In a recipe it packs the training rows as well, first fit: see
    `cadenza.data.packing`. A batch then holds as many rows, and more documents.

    Use it where a fixed number of tokens per batch is wanted, or with long rows. `unpadding` alone computes
    on no padding either; the two go together.

    Works on every encoder and decoder on the attention interface.
    """

    stage = Stage.ATTENTION
    keeps_outputs = True
    packs_rows: ClassVar[bool] = True

    def prepare(self, model: nn.Module) -> Undo:
        return open_seam(model)

    def edit(self, site: Site) -> Undo | None:
        module: Any = site.module
        edits: list[Edit] = []
        if module in base_models(module):
            edits.append(partial(claim, module, packing=True))
        elif module is site.host and base_models(module):
            edits.append(partial(mix, module, TakesDocumentIds))
        elif isinstance(getattr(module, "model", None), PreTrainedModel) and base_models(module.model):
            # Composer's wrapper passes on what was in the signature when it was made.
            names = {*module.model_forward_args, "document_ids"}
            edits.append(partial(set_attributes, module, model_forward_args=names))
        return chain(*edits) if edits else None


def apply_sequence_packing(
    model: nn.Module, *, optimizers: Optimizer | list[Optimizer] | None = None
) -> Report:
    """Let `model` take `document_ids`, in place; see `SequencePacking`.

    Raises:
        NoEffect: the model has no attention on transformers' attention interface.
    """
    return SequencePacking().operate(model, optimizers)


class TakesDocumentIds:
    """A model with a head that takes `document_ids` and hands them to its base model."""

    def forward(self, *args: Any, document_ids: Tensor | None = None, **kwargs: Any) -> Any:
        if document_ids is not None:
            kwargs["document_ids"] = document_ids
        return super().forward(*args, **kwargs)
