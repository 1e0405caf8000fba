"""Vocabulary padding: embedding and output rows to a multiple that kernels like."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer
from transformers import PreTrainedModel

from cadenza.surgery.engine import Site, Surgery
from cadenza.surgery.errors import NoEffect, SurgeryError
from cadenza.surgery.ledger import Stage
from cadenza.surgery.parameters import drawn, replace_parameter, set_attributes
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Undo, chain, mix

# Far below any logit, yet finite in float16: the softmax of it is exactly 0 in every dtype.
NEVER = torch.finfo(torch.float16).min / 2


@dataclass(repr=False, eq=False)
class VocabPadding(Surgery):
    """Pads the vocabulary to a multiple, 30522 to 30528 in MosaicBERT (arXiv 2312.17482).

    Word embeddings, output weights and output bias get new rows at the end, drawn by the model's own
    init; ties stay ties. The logits of the new rows are -32752 whatever the input: they can't win, take
    no probability, and leave the loss as it was. (MosaicBERT leaves them free and trains them down.)

    Use it on GPUs, whose matrix units want multiples of 64; it costs a few rows.

    Works on every Hugging Face model with word embeddings, with or without a language-model head.
    """

    multiple: int = 64
    stage = Stage.STRUCTURE

    def __post_init__(self) -> None:
        if self.multiple < 1:
            raise SurgeryError(f"vocab_padding multiple is {self.multiple}; it must be at least 1")

    def edit(self, site: Site) -> Undo | None:
        if not _is_outermost(site):
            return None
        host: Any = site.host
        words, head = host.get_input_embeddings(), host.get_output_embeddings()
        vocabulary = words.weight.shape[0]
        padded = -(-vocabulary // self.multiple) * self.multiple
        if padded == vocabulary:
            raise NoEffect(f"{vocabulary} words are already a multiple of {self.multiple}")
        return _pad(host, words, head, padded)

    @staticmethod
    def stock_config(fields: dict[str, Any]) -> dict[str, Any]:
        rest = {name: value for name, value in fields.items() if name != "unpadded_vocab_size"}
        return {**rest, "vocab_size": fields["unpadded_vocab_size"]}

    def describe(self, site: Site) -> str:
        host: Any = site.host
        if not _is_outermost(site):
            return ""
        words = host.get_input_embeddings().weight.shape[0]
        return f"{type(site.module).__name__} of {words} words"


def apply_vocab_padding(
    model: nn.Module, multiple: int = 64, *, optimizers: Optimizer | list[Optimizer] | None = None
) -> Report:
    """Pad the vocabulary of `model` to a multiple, in place; see `VocabPadding`.

    Raises:
        NoEffect: no Hugging Face model, or its vocabulary is such a multiple already.
    """
    return VocabPadding(multiple).operate(model, optimizers)


class PaddedVocabulary:
    """An output layer whose logits from `real_vocabulary` on can't win."""

    def forward(self, x: Tensor) -> Tensor:
        bias = self.weight.new_zeros(self.out_features) if self.bias is None else self.bias
        padding = torch.arange(self.out_features, device=x.device) >= self.real_vocabulary
        return F.linear(x, self.weight, bias.masked_fill(padding, NEVER))


def _is_outermost(site: Site) -> bool:
    return site.module is site.host


def _pad(host: PreTrainedModel, words: Any, head: Any, rows: int) -> Undo:
    real = words.weight.shape[0]
    counting = [m for m in host.modules() if getattr(m, "vocab_size", None) == real]
    return chain(
        partial(_pad_parameter, host, nn.Embedding, words.weight, rows),
        partial(set_attributes, words, num_embeddings=rows),
        partial(set_attributes, host.config, unpadded_vocab_size=real),  # for who saves and loads it
        *(partial(set_attributes, it, vocab_size=rows) for it in [host.config, *counting]),
        chain if head is None else partial(_pad_head, host, head, real, rows),
    )


def _pad_head(host: PreTrainedModel, head: Any, real: int, rows: int) -> Undo:
    tied = head.weight.shape[0] == rows  # padded with the word embeddings
    return chain(
        chain if tied else partial(_pad_parameter, host, nn.Linear, head.weight, rows),
        chain if head.bias is None else partial(_pad_parameter, host, None, head.bias, rows),
        partial(set_attributes, head, out_features=rows, real_vocabulary=real),
        partial(mix, head, PaddedVocabulary),
    )


def _pad_parameter(host: PreTrainedModel, layer: type[nn.Module] | None, old: Parameter, rows: int) -> Undo:
    """Append rows to `old` everywhere: drawn for a layer's weight, zeros for a bias."""
    extra = rows - old.shape[0]
    if layer is None:
        new = old.new_zeros(extra)
    else:
        new = drawn(host, layer, (extra, old.shape[1]), like=old.detach())
    grown = Parameter(torch.cat([old.detach(), new]), requires_grad=old.requires_grad)
    return replace_parameter(host, old, grown)
