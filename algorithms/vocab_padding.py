"""Vocabulary padding: embedding and output rows are padded to a multiple that suits GPU kernels."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from cadenza.options import Range, option
from cadenza.surgery.engine import Site, Surgery
from cadenza.surgery.errors import NoEffect, SurgeryError
from cadenza.surgery.ledger import leave
from cadenza.surgery.optimizers import Optimizers
from cadenza.surgery.parameters import new_weight, resize_rows, set_attributes
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Mixin, Stage, Undo, mix, unmix

__all__ = ["VocabPadding", "apply_vocab_padding"]


@dataclass(repr=False, eq=False)
class VocabPadding(Surgery):
    """Pads the vocabulary to a multiple, 30522 to 30528 in MosaicBERT (arXiv 2312.17482).

    Word embeddings, output weights and output bias get new rows at the end, initialized by the model's own
    init; tied weights stay tied. The output layer computes with the padded rows, then cuts their logits off:
    logits and `config.vocab_size` keep the real vocabulary, so every loss stays as it was. (In MosaicBERT the
    padded words have logits, and training lowers them.) `resize_token_embeddings` pads the new size again.

    Use it on GPUs, where matrix products are fast at multiples of 64. It costs a few rows.

    Works on any Hugging Face model with word embeddings, with or without a language-model head.
    """

    multiple: int = option(64, "What the number of rows is a multiple of.", Range("[1, 65536]"))
    stage = Stage.STRUCTURE

    def edit(self, site: Site) -> Iterator[Undo]:
        host: Any = site.host
        if site.module is not host or (words := _words(host)) is None:
            return
        real = len(words.weight)
        if real % self.multiple == 0:
            raise NoEffect(f"{real} words are already a multiple of {self.multiple}")
        _refuse_other_uses(host, site.path)
        yield set_attributes(host, vocabulary_multiple=self.multiple, real_vocabulary=real)
        yield mix(host, PaddedModel)
        _pad(host)
        yield partial(_cut, host)

    @staticmethod
    def stock_config(fields: dict[str, Any]) -> dict[str, Any]:
        """Versions up to 0.1 wrote the padded vocabulary to the config, and the real one beside it."""
        rest = {name: value for name, value in fields.items() if name != "unpadded_vocab_size"}
        return {**rest, "vocab_size": fields["unpadded_vocab_size"]} if rest != fields else rest

    def describe(self, site: Site) -> str:
        words = _words(site.host) if site.module is site.host else None
        return "" if words is None else f"{type(site.host).__name__} of {len(words.weight)} words"


def apply_vocab_padding(model: nn.Module, multiple: int = 64, *, optimizers: Optimizers = None) -> Report:
    """Pad the vocabulary of `model` to a multiple, in place; see `VocabPadding`.

    An undo keeps what was trained in the real rows meanwhile, and its moments in `optimizers`.

    Raises:
        NoEffect: there is no Hugging Face model, or its vocabulary already is a multiple.
        SurgeryError: the model uses its output weights elsewhere than in the output layer.
    """
    return VocabPadding(multiple).operate(model, optimizers)


class PaddedVocabulary(Mixin, of="vocab_padding", stage=Stage.STRUCTURE):
    """An output layer that cuts off the logits of all words from `real_vocabulary` on."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        if len(self.weight) != self.out_features:
            raise SurgeryError(
                f"the vocabulary has {len(self.weight)} rows in place of {self.out_features}; resize the "
                "outermost model, by its resize_token_embeddings"
            )
        # A view: the product, forward and backward, has the padded size.
        return super().forward(*args, **kwargs)[..., : self.real_vocabulary]


class PaddedModel(Mixin, of="vocab_padding", stage=Stage.STRUCTURE):
    """A Hugging Face model that is resized without its padding, and padded again."""

    def resize_token_embeddings(self: Any, *args: Any, **kwargs: Any) -> nn.Module:
        _cut(self)
        try:
            return super().resize_token_embeddings(*args, **kwargs)
        finally:
            self.real_vocabulary = len(self.get_input_embeddings().weight)
            if self.real_vocabulary % self.vocabulary_multiple:
                _pad(self)
            else:  # a stock model
                unmix(self, PaddedModel)
                leave(self, VocabPadding.__name__)


def _words(host: Any) -> nn.Embedding | None:
    """The word embeddings of `host`; None if it has none."""
    try:
        words = host.get_input_embeddings() if host is not None else None
    except NotImplementedError:
        return None
    return words if isinstance(words, nn.Embedding) else None


def _tables(host: Any) -> dict[Parameter, type[nn.Module] | None]:
    """The parameters with a row for each word, each with the layer as which it is initialized."""
    words, head = host.get_input_embeddings(), host.get_output_embeddings()
    tables: dict[Parameter, type[nn.Module] | None] = {words.weight: nn.Embedding}
    if head is not None:
        tables |= {} if head.weight is words.weight else {head.weight: nn.Linear}
        tables |= {} if getattr(head, "bias", None) is None else {head.bias: None}
    if any(not isinstance(table, Parameter) for table in tables):
        raise SurgeryError(
            f"{type(host).__name__}: weights of its words are computed, by a parametrization, pruning or "
            "weight norm; remove that first"
        )
    return tables


def _refuse_other_uses(host: Any, path: str) -> None:
    """Raise if the model multiplies by its output weights outside of the output layer, as MobileBERT does.

    Then the padded words would get logits. Such a model has other matrices of the vocabulary's size beside
    the output layer, or none in it.
    """
    head, real = host.get_output_embeddings(), len(host.get_input_embeddings().weight)
    if head is None:
        return
    beside = next(m for m in host.modules() if any(child is head for child in m.children()))
    known = {*_tables(host), *(m.weight for m in beside.modules() if isinstance(m, nn.Embedding))}
    others = [
        name for name, p in beside.named_parameters() if p.ndim > 1 and real in p.shape and p not in known
    ]
    if others or len(head.weight) != real:
        reason = f"{others[0]} has that size too" if others else f"the output layer has {len(head.weight)}"
        raise SurgeryError(
            f"{path or type(host).__name__}: the vocabulary has {real} words, and {reason}; vocab_padding "
            "needs logits that the output layer alone computes"
        )


def _pad(host: Any) -> None:
    """Add rows to the tables of `host`, and make its output layer cut their logits off."""
    extra = -host.real_vocabulary % host.vocabulary_multiple
    rows = {table: _new_rows(host, table, layer, extra) for table, layer in _tables(host).items()}
    if (head := host.get_output_embeddings()) is not None:
        mix(head, PaddedVocabulary)  # it may raise, so it comes before all changes
        head.real_vocabulary = host.real_vocabulary
    for table, new in rows.items():
        resize_rows(table, torch.cat([table.detach(), new]))
    _count(host)


def _cut(host: Any) -> None:
    """Undo `_pad`: the real rows stay as they were trained."""
    if not isinstance(host, PaddedModel):  # it was resized to a multiple
        return
    for table in _tables(host):
        resize_rows(table, table.detach()[: host.real_vocabulary].clone())
    _count(host)
    if (head := host.get_output_embeddings()) is not None:
        unmix(head, PaddedVocabulary)
        del head.real_vocabulary


def _count(host: Any) -> None:
    words, head = host.get_input_embeddings(), host.get_output_embeddings()
    words.num_embeddings = len(words.weight)
    if head is not None:
        head.out_features = len(head.weight)


def _new_rows(host: Any, table: Parameter, layer: type[nn.Module] | None, extra: int) -> Tensor:
    """`extra` rows for `table`, initialized as those of `layer`, or zeros for a bias."""
    if layer is None:
        return table.new_zeros(extra)
    return new_weight(host, layer, (extra, table.shape[1]), like=table)
