"""Vocabulary padding: embedding and output rows are padded to a multiple that suits GPU kernels."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Parameter
from transformers import PreTrainedModel

from cadenza.surgery.engine import Site, Surgery
from cadenza.surgery.errors import NoEffect, SurgeryError
from cadenza.surgery.optimizers import Optimizers
from cadenza.surgery.parameters import new_weight, replace_parameter, set_attributes
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Mixin, Stage, Undo, mix

__all__ = ["VocabPadding", "apply_vocab_padding"]

# Far below any logit, yet finite in float16; its softmax is exactly 0 in every dtype.
NEVER = torch.finfo(torch.float16).min / 2


@dataclass(repr=False, eq=False)
class VocabPadding(Surgery):
    """Pads the vocabulary to a multiple, 30522 to 30528 in MosaicBERT (arXiv 2312.17482).

    Word embeddings, output weights and output bias get new rows at the end, initialized by the model's own
    init; tied weights stay tied. The logits of the new rows are near -32752 for any input, so their
    probability is 0 and the loss doesn't change. (In MosaicBERT they are free, and training lowers them.)

    Use it on GPUs, where matrix products are fast at multiples of 64. It costs a few rows.

    Works on any Hugging Face model with word embeddings, with or without a language-model head.
    """

    multiple: int = 64
    stage = Stage.STRUCTURE

    def __post_init__(self) -> None:
        if self.multiple < 1:
            raise SurgeryError(f"vocab_padding multiple is {self.multiple}; it must be at least 1")

    def edit(self, site: Site) -> Iterator[Undo]:
        host: Any = site.host
        if site.module is not host:
            return
        words, head = host.get_input_embeddings(), host.get_output_embeddings()
        real = words.weight.shape[0]
        padded = -(-real // self.multiple) * self.multiple
        if padded == real:
            raise NoEffect(f"{real} words are already a multiple of {self.multiple}")
        yield from _pad(host, words, head, padded)

    @staticmethod
    def stock_config(fields: dict[str, Any]) -> dict[str, Any]:
        rest = {name: value for name, value in fields.items() if name != "unpadded_vocab_size"}
        return {**rest, "vocab_size": fields["unpadded_vocab_size"]}

    def describe(self, site: Site) -> str:
        host: Any = site.host
        if site.module is not host:
            return ""
        return f"{type(host).__name__} of {host.get_input_embeddings().weight.shape[0]} words"


def apply_vocab_padding(model: nn.Module, multiple: int = 64, *, optimizers: Optimizers = None) -> Report:
    """Pad the vocabulary of `model` to a multiple, in place; see `VocabPadding`.

    Raises:
        NoEffect: there is no Hugging Face model, or its vocabulary already is a multiple.
    """
    return VocabPadding(multiple).operate(model, optimizers)


class PaddedVocabulary(Mixin, of="vocab_padding", stage=Stage.STRUCTURE):
    """An output layer whose bias is -32752 for all words from `real_vocabulary` on."""

    def forward(self, x: Tensor) -> Tensor:
        bias = self.weight.new_zeros(self.out_features) if self.bias is None else self.bias
        padding = torch.arange(self.out_features, device=x.device) >= self.real_vocabulary
        return F.linear(x, self.weight, bias.masked_fill(padding, NEVER))


def _pad(host: PreTrainedModel, words: Any, head: Any, rows: int) -> Iterator[Undo]:
    real = words.weight.shape[0]
    sized = [m for m in host.modules() if getattr(m, "vocab_size", None) == real]
    yield _pad_parameter(host, nn.Embedding, words.weight, rows)
    yield set_attributes(words, num_embeddings=rows)
    yield set_attributes(host.config, unpadded_vocab_size=real)  # read when a saved folder is loaded
    for target in [host.config, *sized]:
        yield set_attributes(target, vocab_size=rows)
    if head is not None:
        yield from _pad_head(host, head, real, rows)


def _pad_head(host: PreTrainedModel, head: Any, real: int, rows: int) -> Iterator[Undo]:
    if head.weight.shape[0] != rows:  # not padded with the word embeddings
        yield _pad_parameter(host, nn.Linear, head.weight, rows)
    if head.bias is not None:
        yield _pad_parameter(host, None, head.bias, rows)
    yield set_attributes(head, out_features=rows, real_vocabulary=real)
    yield mix(head, PaddedVocabulary)


def _pad_parameter(host: PreTrainedModel, layer: type[nn.Module] | None, old: Parameter, rows: int) -> Undo:
    """Append rows to `old` everywhere: initialized as for `layer`, or zeros if it is None (a bias)."""
    data, extra = old.detach(), rows - old.shape[0]
    new = old.new_zeros(extra) if layer is None else new_weight(host, layer, (extra, old.shape[1]), like=data)
    padded = Parameter(torch.cat([data, new]), requires_grad=old.requires_grad)
    return replace_parameter(host, old, padded)
