"""Sequence packing: several documents in one row, which don't see each other."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn
from torch.optim import Optimizer

from cadenza.surgery.document_ids import take_document_ids
from cadenza.surgery.engine import Site
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Undo
from cadenza.surgery.seam import AttentionSurgery


@dataclass(repr=False, eq=False)
class SequencePacking(AttentionSurgery):
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

    keeps_outputs = True
    packs_rows: ClassVar[bool] = True

    def edit(self, site: Site) -> Undo | None:
        return take_document_ids(site, packing=True)


def apply_sequence_packing(
    model: nn.Module, *, optimizers: Optimizer | list[Optimizer] | None = None
) -> Report:
    """Let `model` take `document_ids`, in place; see `SequencePacking`.

    Raises:
        NoEffect: the model has no attention on transformers' attention interface.
    """
    return SequencePacking().operate(model, optimizers)
