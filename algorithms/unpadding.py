"""Unpadding: real tokens only, from the embeddings to the last layer."""

from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from cadenza.surgery.attention import base_models, claim
from cadenza.surgery.engine import Site
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Undo, is_stock
from cadenza.surgery.seam import AttentionSurgery


@dataclass(repr=False, eq=False)
class Unpadding(AttentionSurgery):
    """Gathers the real tokens of a batch once, before the embeddings; every layer works on (1, total,
    hidden).

    Each document attends to itself alone; nothing is computed on padding. Callers see stock shapes: hidden
    states, logits and pooled outputs are put back into their places, with zeros at padding. Outputs and
    gradients at real tokens are the stock model's. MosaicBERT (arXiv 2312.17482) unpads once, but pads again
    inside every layer's attention.

    Use it wherever batches hold padding; without padding it costs nothing measurable. It needs
    `flash_attention` to be fast on CUDA: the model's own kernel is called once for each run of equally long
    documents.

    Works on every encoder and decoder on the attention interface. Masks are (batch, length), with a row's
    real tokens together, on either side. Without caches: undo it to generate. Attention weights aren't
    returned.
    """

    keeps_outputs = True

    def edit(self, site: Site) -> Undo | None:
        module: Any = site.module
        if module not in base_models(module):
            return None
        pooler = getattr(module, "pooler", None)
        if pooler is not None and not (isinstance(pooler, nn.Linear) or is_stock(pooler, *POOLERS)):
            raise SurgeryError(
                f"{site.path}.pooler: {type(pooler).__name__} is not a pooler of the first token"
            )
        return claim(module, layout="unpadded")


POOLERS = ("BertPooler", "RobertaPooler", "XLMRobertaPooler")


def apply_unpadding(model: nn.Module, *, optimizers: Optimizer | list[Optimizer] | None = None) -> Report:
    """Take padding out of everything `model` computes, in place; see `Unpadding`.

    Raises:
        NoEffect: the model has no attention on transformers' attention interface.
    """
    return Unpadding().operate(model, optimizers)
