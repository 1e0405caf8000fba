"""Sparse prediction: the masked-LM head runs on labelled tokens only."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from cadenza.attention.modules import base_models
from cadenza.attention.plan import claim
from cadenza.attention.technique import AttentionSurgery
from cadenza.losses.cross_entropy import cross_entropy_
from cadenza.losses.masked_lm import IGNORED, check_labels, is_cross_entropy, loss_name, loss_options
from cadenza.losses.without_logits.host import WithoutLogits
from cadenza.surgery.engine import Site
from cadenza.surgery.optimizers import Optimizers
from cadenza.surgery.parameters import set_attributes
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Mixin, Stage, Undo, is_stock, mix, stock_class

__all__ = ["SparsePrediction", "apply_sparse_prediction"]


@dataclass(repr=False, eq=False)
class SparsePrediction(AttentionSurgery):
    """Runs the masked-LM head, and the row-wise part of the last layer, on labelled tokens only.

    The loss and its gradients stay equal, with `num_items_in_batch` and under a loss scale as well. With
    `labels`, logits are (1, labelled, vocabulary) in the order of the batch. In a training step they are
    None, because the backward overwrites them with their gradient. Two cases keep them: training metrics of a
    Composer model, which see the matching labels, and a `loss_function` of one's own, which gets the labelled
    rows alone. With `chunked_loss` no call with labels keeps them. Labels on padding count as in stock code;
    `unpadding` doesn't compute padding, so with it they are an error. Without `labels` everything is stock.
    MosaicBERT (arXiv 2312.17482) does the same, but scatters the logits to a dense (batch, length,
    vocabulary) tensor.

    Use it for every masked LM: at 30 % masking it leaves less than a third of the head's work.

    Works on BERT, RoBERTa, XLM-RoBERTa, ELECTRA, DistilBERT, ALBERT and ModernBERT. In the last three only
    the head runs on labelled tokens.
    """

    keeps_outputs = True

    def survey(self, model: nn.Module) -> bool:
        """Whether training metrics read the logits."""
        return any(_is_composer(m) and bool(m.train_metrics) for m in model.modules())

    def edit(self, site: Site) -> Iterator[Undo]:
        module: Any = site.module
        if is_stock(module, *HEADS) and base_models(module):
            found = loss_name(stock_class(module))
            yield set_attributes(module, keeps_logits=site.survey, loss_name=found)
            yield from self._head(module)
        elif _is_composer(module) and is_stock(module.model, *HEADS):
            yield mix(module, LabelledMetrics)

    def _head(self, host: Any) -> Iterator[Undo]:
        base = base_models(host)[0]
        last_layer = getattr(getattr(base, "encoder", None), "layer", [None])[-1]
        attention = getattr(last_layer, "attention", None)
        yield mix(host, LabelledLoss)
        if attention is not None and is_stock(attention, *ATTENTIONS):
            yield claim(base, rows="last_layer")
            yield mix(attention, LabelledRows)
        else:
            yield claim(base, rows="output")


FAMILIES = ("Bert", "Roberta", "XLMRoberta", "Electra")
HEADS = tuple(f"{name}ForMaskedLM" for name in (*FAMILIES, "DistilBert", "Albert", "ModernBert"))
ATTENTIONS = tuple(f"{name}Attention" for name in FAMILIES)


def _is_composer(module: Any) -> bool:
    """Whether `module` has the structure of Composer's wrapper, which computes the metrics."""
    return hasattr(module, "eval_forward") and isinstance(getattr(module, "model", None), PreTrainedModel)


def apply_sparse_prediction(model: nn.Module, *, optimizers: Optimizers = None) -> Report:
    """Let the masked-LM head of `model` run on labelled tokens only, in place; see `SparsePrediction`.

    Raises:
        NoEffect: the model contains no masked-LM head of these families.
    """
    return SparsePrediction().operate(model, optimizers)


class LabelledLoss(Mixin, of="sparse_prediction", stage=Stage.ATTENTION):
    """A masked LM that computes logits at labelled tokens; a training step without metrics keeps none."""

    def forward(self, *args: Any, labels: Tensor | None = None, **kwargs: Any) -> Any:
        if labels is None:
            return super().forward(*args, **kwargs)
        options = loss_options(self.loss_name, kwargs)
        check_labels(labels, *args[:1], **kwargs)
        labels = labels.flatten()  # (batch * length,)
        rows = (labels != options.get("ignore_index", IGNORED)).nonzero()[:, 0]
        labels = labels[rows]  # (labelled,)
        if isinstance(self, WithoutLogits):  # chunked_loss
            with sparse_lookup(self):
                return super().forward(*args, labels=labels[None], labelled=rows, **kwargs)
        plain = is_cross_entropy(self, self.loss_name, options)
        if self.keeps_logits or not (plain and self.training and torch.is_grad_enabled()):
            return super().forward(*args, labels=labels[None], labelled=rows, **kwargs)
        wants_dict = kwargs.pop("return_dict", None)
        wants_dict = self.config.return_dict if wants_dict is None else wants_dict
        with sparse_lookup(self):
            output = super().forward(*args, labelled=rows, return_dict=True, **kwargs)
        loss = cross_entropy_(output["logits"].flatten(0, 1), labels, options.get("num_items_in_batch"))
        output = type(output)(**{**output, "loss": loss, "logits": None})
        return output if wants_dict else output.to_tuple()


@contextmanager
def sparse_lookup(model: Any) -> Iterator[None]:
    """Make the gradient of tied word embeddings on a CPU sparse: it holds the rows that were looked up.

    It is added to the dense gradient of the head. A second dense gradient took 10 % of a step.
    """
    words, head = model.get_input_embeddings(), model.get_output_embeddings()
    before = words.sparse
    trains = torch.is_grad_enabled() and words.weight.requires_grad
    words.sparse = before or (trains and words.weight is head.weight and not words.weight.is_cuda)
    try:
        yield
    finally:
        words.sparse = before


class LabelledRows(Mixin, of="sparse_prediction", stage=Stage.ATTENTION, replaces=True):
    """The attention of the last layer; its output projection and residual run on labelled rows.

    The rest of the layer is row-wise, so it runs on these rows alone.
    """

    def forward(
        self, hidden_states: Tensor, *args: Any, labelled: Tensor | None = None, **kwargs: Any
    ) -> Any:
        if labelled is None:
            return super().forward(hidden_states, *args, **kwargs)
        context, weights = self.self(hidden_states, *args, **kwargs)
        # (batch, length, hidden) -> (1, labelled, hidden)
        rows = [x.flatten(0, 1).index_select(0, labelled)[None] for x in (context, hidden_states)]
        return self.output(*rows), weights


class LabelledMetrics(Mixin, of="sparse_prediction", stage=Stage.ATTENTION):
    """A Composer model; its metrics see the labelled tokens alone, in evaluation too."""

    def eval_forward(self, batch: Any, outputs: Any = None) -> Any:
        if outputs is None and "labels" in batch:
            outputs = self.forward(batch)
        logits = super().eval_forward(batch, outputs)
        if self.labels is not None:
            self.labels = self.labels[self.labels != IGNORED][None]
        return logits
