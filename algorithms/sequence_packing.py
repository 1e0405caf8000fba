"""Sequence packing: several documents in one row, which don't attend to each other."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from cadenza.attention.document_ids import take_document_ids
from cadenza.attention.modules import base_models
from cadenza.attention.poolers import refuse_other_poolers
from cadenza.attention.proof.claims import documents_equal_rows, masks_are_known, mixes_by_attention
from cadenza.attention.proof.heads import prove_heads
from cadenza.attention.rotary.tables import refuse_scaling_by_length
from cadenza.attention.technique import AttentionSurgery
from cadenza.surgery.engine import Site
from cadenza.surgery.optimizers import Optimizers
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Undo

__all__ = ["SequencePacking", "apply_sequence_packing"]


@dataclass(repr=False, eq=False)
class SequencePacking(AttentionSurgery):
    """Computes rows of several documents, each as if it stood alone.

    A batch holds `document_ids` (batch, length): 1, 2, ... for the documents of a row, -1 for padding.
    Attention stays within a document and positions start anew in each, so outputs and gradients are those of
    the documents alone. (Stock transformers encoders attend across documents without a warning; packing that
    leaks cost NeoBERT GLUE points, arXiv 2502.19587.) In a recipe it also packs the training rows, first fit:
    see `cadenza.data.text.datasets.packing`. A batch then has the same number of rows, but more documents.

    A model that classifies sequences returns logits (documents, labels), in the order of the batch, and takes
    `labels` (documents,). For its head a batch is unpacked to one document a row, but its layers compute on
    real tokens only. `pooler_output` is (documents, hidden). In labels by token for a causal model the first
    token of each document must be -100, since the stock loss would predict it from the document before.

    Use it for a fixed number of tokens per batch, or with long rows. `unpadding` also avoids computing on
    padding, and combines with it.

    Works on any encoder or decoder whose tokens meet in attention alone (docs/families.md).
    """

    keeps_outputs = True
    claims = (mixes_by_attention, masks_are_known, documents_equal_rows)
    packs_rows: ClassVar[bool] = True

    def edit(self, site: Site) -> Iterator[Undo]:
        if site.module in base_models(site.module):
            refuse_scaling_by_length(site.module)
            refuse_other_poolers(site.module, site.path)
        return take_document_ids(site, packing=True)

    def finish(self, report: Report, survey: Any) -> Iterator[Undo]:
        yield from super().finish(report, survey)
        if self.prove and report.changes:
            prove_heads(report.model)


def apply_sequence_packing(model: nn.Module, *, optimizers: Optimizers = None, prove: bool = True) -> Report:
    """Let `model` accept `document_ids`, in place; see `SequencePacking`.

    Raises:
        NoEffect: the model has no attention on transformers' attention interface.
        SurgeryError: a model of no tested family can't prove that it keeps documents apart.
    """
    return SequencePacking(prove=prove).operate(model, optimizers)
