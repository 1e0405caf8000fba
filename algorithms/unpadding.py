"""Unpadding: the model computes on real tokens only, from the embeddings to the last layer."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from cadenza.attention.modules import base_models
from cadenza.attention.plan import claim
from cadenza.attention.poolers import refuse_other_poolers
from cadenza.attention.proof.claims import masks_are_known, mixes_by_attention, rows_equal_stock
from cadenza.attention.rotary.tables import refuse_scaling_by_length
from cadenza.attention.technique import AttentionSurgery
from cadenza.surgery.engine import Site
from cadenza.surgery.optimizers import Optimizers
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Undo

__all__ = ["Unpadding", "apply_unpadding"]


@dataclass(repr=False, eq=False)
class Unpadding(AttentionSurgery):
    """Gathers the real tokens of a batch before the embeddings, so that no layer computes on padding.

    Layers get (1, total, hidden), and each document attends only to itself. Callers get stock shapes: hidden
    states, logits and pooled outputs are padded again, with zeros at padding. Outputs and gradients at real
    tokens are those of the stock model. MosaicBERT (arXiv 2312.17482) unpads once, but pads again inside the
    attention of every layer.

    Use it whenever batches contain padding; without padding it costs nothing measurable. Add
    `flash_attention` on CUDA: the model's own kernel is slower, because it is called once for each run of
    equally long documents.

    Works on any encoder or decoder whose tokens meet in attention alone (docs/families.md). A call that it
    can't compute is left to the stock code, with a warning: caches and generation, attention weights, masks
    with holes or of more dimensions, labels that are predicted from padding.
    """

    keeps_outputs = True
    claims = (mixes_by_attention, masks_are_known, rows_equal_stock)

    def edit(self, site: Site) -> Iterator[Undo]:
        module: Any = site.module
        if module not in base_models(module):
            return
        refuse_scaling_by_length(module)
        refuse_other_poolers(module, site.path)
        yield claim(module, layout="unpadded")


def apply_unpadding(model: nn.Module, *, optimizers: Optimizers = None, prove: bool = True) -> Report:
    """Let `model` compute on real tokens only, in place; see `Unpadding`.

    Raises:
        NoEffect: the model has no attention on transformers' attention interface.
        SurgeryError: a model of no tested family can't prove that its outputs stay equal.
    """
    return Unpadding(prove=prove).operate(model, optimizers)
