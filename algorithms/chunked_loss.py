"""Chunked loss: the output layer and the cross-entropy in chunks of rows; logits never exist at once."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from composer.models import HuggingFaceModel
from torch import nn
from transformers import PreTrainedModel

from cadenza.losses.masked_lm import loss_name
from cadenza.losses.without_logits.arguments import check_loss, refuse_own_selection
from cadenza.losses.without_logits.host import ChunkedLayer, MetricsWithoutLogits, WithoutLogits
from cadenza.losses.without_logits.metrics import refuse_unknown
from cadenza.losses.without_logits.output_layer import output_layer_of
from cadenza.losses.without_logits.reading import read
from cadenza.options import Range, option
from cadenza.surgery.engine import Site, Surgery
from cadenza.surgery.optimizers import Optimizers
from cadenza.surgery.parameters import set_attributes
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Stage, Undo, mix, stock_class

__all__ = ["ChunkedLoss", "apply_chunked_loss"]


@dataclass(repr=False, eq=False)
class ChunkedLoss(Surgery):
    """Computes the output layer and the cross-entropy in chunks of rows; all logits never exist at once.

    The gradients of the hidden state and of the output weight are made in the same pass (as in Liger Kernel,
    arXiv 2410.10989). Loss and gradients stay equal to rounding. Rows without a label aren't computed. With
    `labels` a call returns a loss and no logits, in training and in evaluation; without `labels` everything
    is stock. The metrics LanguageCrossEntropy, LanguagePerplexity and MaskedAccuracy of a Composer model are
    computed from the rows' losses; a metric that needs logits is refused.

    Use it where logits take the memory: long rows, many words. 8,192 tokens of 49,152 words are 1.6 GB of
    logits in float32, and as much of gradients.

    Works on any causal or masked LM of transformers whose loss is the cross-entropy of an `nn.Linear`, with a
    scale or a softcap of the logits; a short call proves that when it is applied.
    """

    rows: int | None = option(
        None,
        "The rows of logits that exist at a time; by default 512 on a CPU and 4,096 on a GPU.",
        Range("[1, 1000000000]", whole=True),
    )
    label_smoothing: float = option(
        0.0, "The share of each target that is spread over all words.", Range("[0, 1)")
    )
    z_loss: float = option(
        0.0,
        "The weight of the squared logarithm of the softmax's denominator, whose mean over labelled rows is "
        "added to the loss: the z-loss of PaLM, 1e-4 there (arXiv 2204.02311).",
        Range("[0, 1000]"),
    )
    stage = Stage.ATTENTION
    keeps_outputs = True

    def edit(self, site: Site) -> Iterator[Undo]:
        module: Any = site.module
        if module is site.host and (layer := output_layer_of(module, "chunked_loss")) is not None:
            refuse_own_selection(module)
            yield mix(layer, ChunkedLayer)
            reading = read(module, layer)
            check_loss(module, reading, loss_name(stock_class(module)))
            yield set_attributes(module, loss_reading=reading, loss_terms=self.options, wants_hits=False)
            yield set_attributes(module, row_scores=None)  # the undo drops those of the last batch
            yield mix(module, WithoutLogits)
        elif isinstance(module, HuggingFaceModel) and _has_head(module):
            refuse_unknown(module.train_metrics)
            refuse_unknown(module.val_metrics)
            yield mix(module, MetricsWithoutLogits)

    def finish(self, report: Report, survey: Any) -> Iterator[Undo]:
        """Training metrics need the hits of each row."""
        for module in report.model.modules():
            if isinstance(module, MetricsWithoutLogits) and module.train_metrics:
                yield set_attributes(module.scored, wants_hits=True)


def apply_chunked_loss(
    model: nn.Module,
    rows: int | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    *,
    optimizers: Optimizers = None,
) -> Report:
    """Compute the loss of `model` in chunks of rows, in place; see `ChunkedLoss`.

    Raises:
        NoEffect: the model contains no language model with an output layer.
        SurgeryError: its loss isn't the cross-entropy of its output layer, or a metric needs logits.
    """
    return ChunkedLoss(rows, label_smoothing, z_loss).operate(model, optimizers)


def _has_head(module: nn.Module) -> bool:
    models = (m for m in module.modules() if isinstance(m, PreTrainedModel))
    return any(output_layer_of(model, "chunked_loss") is not None for model in models)
