"""Query-key norm: queries and keys are normalized head by head."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn import Parameter

from cadenza.attention.modules import ENCODER_ATTENTIONS
from cadenza.attention.plan import claim
from cadenza.attention.rotary.query_key import KEY, QUERY, HeadNorm
from cadenza.attention.technique import AttentionSurgery
from cadenza.options import Range, option
from cadenza.surgery.engine import Site
from cadenza.surgery.optimizers import Optimizers
from cadenza.surgery.parameters import add_parameters
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Undo, is_stock

__all__ = ["QKNorm", "apply_qk_norm"]


@dataclass(repr=False, eq=False)
class QKNorm(AttentionSurgery):
    """Divides each query and key by its root mean square over the head, times a learned weight.

    Henry et al., arXiv 2010.04245, in the form of Qwen3 (arXiv 2505.09388): an RMSNorm over the columns of
    a head, before positions rotate them. Each attention gets the weights `query_norm` and `key_norm`
    (head_dim,), which start at one. Weights alone then say how large a score may be, not the hidden states.

    Use it when pretraining from scratch at a high learning rate, or in low precision. It costs two norms of a
    layer. A pretrained model computes something else, and has to be trained again.

    Works on BERT, RoBERTa, XLM-RoBERTa, ELECTRA, ALBERT and DistilBERT.
    """

    eps: float = option(1e-6, "What is added to the mean square.", Range("(0, 1]"))

    def edit(self, site: Site) -> Iterator[Undo]:
        attention: Any = site.module
        host: Any = site.host
        if host is not None and is_stock(attention, *ENCODER_ATTENTIONS):
            yield claim(attention, norm=HeadNorm(float(self.eps)))
            words = host.get_input_embeddings().weight  # of the attention's dtype, where that is quantized
            size: int = attention.attention_head_size
            ones = [Parameter(words.new_ones(size)) for _ in range(2)]
            yield add_parameters(attention, dict(zip((QUERY, KEY), ones, strict=True)))


def apply_qk_norm(model: nn.Module, eps: float = 1e-6, *, optimizers: Optimizers = None) -> Report:
    """Normalize the queries and keys of `model` head by head, in place; see `QKNorm`.

    Raises:
        NoEffect: the model contains no attention of these families.
    """
    return QKNorm(eps).operate(model, optimizers)
