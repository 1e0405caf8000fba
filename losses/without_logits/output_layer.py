"""An output layer that can compute a loss in place of logits.

It does so within its own `forward`, where FSDP has gathered its weight. The model's stock code runs around it
and gets logits of no words, on which a softcap or a cast costs nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cadenza.losses.chunk_pass import Chunked
from cadenza.losses.linear_cross_entropy import RowScores, linear_cross_entropy
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.retype import Mixin, stock_class


class LossLayer(Mixin):
    """An output layer that hands a call to its `job`, if it has one. Each technique has its own subclass."""

    job: Any = None  # (layer, hidden) -> what the layer returns

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) if self.job is None else self.job(self, input)


def output_layer_of(host: Any, technique: str) -> nn.Linear | None:
    """The layer that makes the logits of `host`; None if there is none.

    Raises:
        SurgeryError: it is no plain `nn.Linear`, or `host` is an encoder-decoder.
    """
    layer, name = host.get_output_embeddings(), stock_class(host).__name__
    if layer is None:
        return None
    if host.config.is_encoder_decoder:
        raise SurgeryError(f"{name} is an encoder-decoder, which {technique} doesn't know")
    if stock_class(layer) is not nn.Linear:
        raise SurgeryError(
            f"{name}: the output layer is {type(layer).__name__}; {technique} needs a plain nn.Linear, "
            "without adapters, parametrizations or quantized weights"
        )
    return layer


@contextmanager
def working(layer: nn.Module, job: Any) -> Iterator[None]:
    """Give `layer` the `job`."""
    if not isinstance(layer, LossLayer):
        raise SurgeryError(f"the output layer was replaced by {type(layer).__name__} since; apply again")
    layer.job = job
    try:
        yield
    finally:
        del layer.job


def words_of(layer: Any) -> int:
    """The words that have logits; `vocab_padding` has rows beyond them."""
    return vars(layer).get("real_vocabulary", len(layer.weight))


class LossJob:
    """Computes the loss of the rows with a label, and returns logits of no words.

    Args:
        labels: what each row of the hidden state predicts, of any shape.
        ignored: the label of a row that predicts nothing.
        weights: a factor for the loss of each row, in the shape of `labels`; None: 1.
        count: see `linear_cross_entropy`.
    """

    def __init__(
        self, labels: Tensor, ignored: int, how: Chunked, weights: Tensor | None = None, count: Any = None
    ) -> None:
        self.labels, self.ignored, self.how, self.weights, self.count = labels, ignored, how, weights, count
        self.loss: Tensor | None = None
        self.scores: RowScores | None = None

    def __call__(self, layer: Any, hidden: Tensor) -> Tensor:
        if self.loss is not None:
            raise SurgeryError("the model calls its output layer twice; its loss needs logits")
        if hidden.shape[:-1].numel() != self.labels.numel():
            shapes = f"{tuple(self.labels.shape)} for logits of {tuple(hidden.shape[:-1])}"
            raise SurgeryError(f"labels have shape {shapes}")
        labels = self.labels.flatten().to(hidden.device)
        chosen = (labels != self.ignored).nonzero()[:, 0]
        weights = None if self.weights is None else self.weights.flatten().to(hidden.device)[chosen]
        rows = hidden.flatten(0, -2)
        rows = rows if len(chosen) == len(rows) else rows.index_select(0, chosen)
        how = Chunked(self.how.terms, self.how.rows, self.how.hits, words_of(layer))
        self.loss, self.scores = linear_cross_entropy(
            rows, layer.weight, layer.bias, labels[chosen], how=how, weights=weights, count=self.count
        )
        # A part of the loss's graph: FSDP gathers and shards weights by hooks on what a layer returns.
        return self.loss.reshape(1)[:0].expand(*hidden.shape[:-1], 0)

    def found(self, output: Any) -> tuple[Tensor, RowScores]:
        """The loss and the scores, after the model has returned `output`.

        Raises:
            SurgeryError: the model computes logits in another way than by its output layer.
        """
        if self.loss is None or self.scores is None:
            raise SurgeryError("the model computes logits without a call of its output layer")
        return self.loss + output["logits"].sum(), self.scores


class Numbers:
    """A job that returns `numbers` in place of logits."""

    def __init__(self, numbers: Tensor) -> None:
        self.numbers, self.calls = numbers, 0

    def __call__(self, layer: Any, hidden: Tensor) -> Tensor:
        self.calls += 1
        if hidden.shape[:-1] != self.numbers.shape[:-1]:
            raise SurgeryError(f"its output layer gets a hidden state of shape {tuple(hidden.shape)}")
        return self.numbers * torch.ones((), device=self.numbers.device)  # not a leaf: some code writes to it
