"""Sparse prediction: the masked-LM head runs on the rows that carry a label."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from cadenza.surgery.attention import base_models, claim
from cadenza.surgery.cross_entropy import cross_entropy_
from cadenza.surgery.engine import Site
from cadenza.surgery.parameters import set_attributes
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Edit, Undo, chain, is_stock, mix
from cadenza.surgery.seam import AttentionSurgery

IGNORED = -100


@dataclass(repr=False, eq=False)
class SparsePrediction(AttentionSurgery):
    """Runs the masked-LM head, and the row-wise part of the last layer, on labelled tokens only.

    The loss and its gradients stay equal. With `labels`, logits are (1, labelled, vocabulary), in the order
    of the batch, and None in a training step, whose loss turns them into their gradient; a Composer model
    with training metrics keeps them, and its metrics see the matching labels. Without `labels` all is
    stock. MosaicBERT (arXiv 2312.17482) does the same, but scatters the logits to a dense (batch, length,
    vocabulary) tensor.

    Use it for every masked LM: at 30 % masking it leaves less than a third of the head's work.

    Works on BERT, RoBERTa, ELECTRA (with the last layer's output projections), DistilBERT, ALBERT and
    ModernBERT (the head alone).
    """

    keeps_outputs = True

    def prepare(self, model: nn.Module) -> Undo:
        heads = [module for module in model.modules() if is_stock(module, *HEADS)]
        keeps_logits = any(_is_composer(m) and m.train_metrics for m in model.modules())
        keep = (partial(set_attributes, head, keeps_logits=keeps_logits) for head in heads)
        return chain(partial(super().prepare, model), *keep)

    def edit(self, site: Site) -> Undo | None:
        module: Any = site.module
        if is_stock(module, *HEADS):
            return self._head(module)
        if _is_composer(module) and is_stock(module.model, *HEADS):
            return mix(module, LabelledMetrics)
        return None

    def _head(self, host: Any) -> Undo | None:
        found = base_models(host)
        if not found:
            return None
        last = getattr(getattr(found[0], "encoder", None), "layer", [None])[-1]
        attention = getattr(last, "attention", None)
        edits: list[Edit] = [partial(mix, host, LabelledLoss)]
        if attention is not None and is_stock(attention, *ATTENTIONS):
            edits += [partial(claim, found[0], rows="last_layer"), partial(mix, attention, LabelledRows)]
        else:
            edits += [partial(claim, found[0], rows="output")]
        return chain(*edits)


FAMILIES = ("Bert", "Roberta", "XLMRoberta", "Electra")
HEADS = tuple(f"{name}ForMaskedLM" for name in (*FAMILIES, "DistilBert", "Albert", "ModernBert"))
ATTENTIONS = tuple(f"{name}Attention" for name in FAMILIES)


def _is_composer(module: Any) -> bool:
    """Whether it's Composer's wrapper, by structure: its metrics look at labels beside logits."""
    return hasattr(module, "eval_forward") and isinstance(getattr(module, "model", None), PreTrainedModel)


def apply_sparse_prediction(
    model: nn.Module, *, optimizers: Optimizer | list[Optimizer] | None = None
) -> Report:
    """Let the masked-LM head of `model` run on labelled tokens only, in place; see `SparsePrediction`.

    Raises:
        NoEffect: no masked-LM head of a known family.
    """
    return SparsePrediction().operate(model, optimizers)


class LabelledLoss:
    """A masked LM that computes logits where there are labels, and in training none that outlive the loss."""

    def forward(self, *args: Any, labels: Tensor | None = None, **kwargs: Any) -> Any:
        if labels is None:
            return super().forward(*args, **kwargs)
        flat = labels.flatten()
        rows = (flat != IGNORED).nonzero()[:, 0]
        labels = flat[rows]
        if self.keeps_logits or not (self.training and torch.is_grad_enabled()):
            return super().forward(*args, labels=labels[None], labelled=rows, **kwargs)
        wants_dict = kwargs.pop("return_dict", None)
        wants_dict = self.config.return_dict if wants_dict is None else wants_dict
        with sparse_lookup(self):
            output = super().forward(*args, labelled=rows, return_dict=True, **kwargs)
        loss = cross_entropy_(output["logits"].flatten(0, 1), labels)
        output = type(output)(**{**output, "loss": loss, "logits": None})
        return output if wants_dict else output.to_tuple()


@contextmanager
def sparse_lookup(model: Any) -> Iterator[None]:
    """Let tied word embeddings on a CPU pass their gradient as the few rows that were looked up.

    The head's gradient, which is dense, takes them up; a second dense one cost 10 % of a step.
    """
    words, head = model.get_input_embeddings(), model.get_output_embeddings()
    before = words.sparse
    words.sparse = before or (words.weight is head.weight and not words.weight.is_cuda)
    try:
        yield
    finally:
        words.sparse = before


class LabelledRows:
    """The attention of a last layer, whose output projection and residual run on labelled rows.

    What follows in the layer is row-wise, and runs on what it gets.
    """

    def forward(
        self, hidden_states: Tensor, *args: Any, labelled: Tensor | None = None, **kwargs: Any
    ) -> Any:
        if labelled is None:
            return super().forward(hidden_states, *args, **kwargs)
        context, weights = self.self(hidden_states, *args, **kwargs)
        rows = [x.flatten(0, 1).index_select(0, labelled)[None] for x in (context, hidden_states)]
        return self.output(*rows), weights


class LabelledMetrics:
    """A Composer model whose metrics see the labelled tokens, in evaluation too."""

    def eval_forward(self, batch: Any, outputs: Any = None) -> Any:
        if outputs is None and "labels" in batch:
            outputs = self.forward(batch)
        logits = super().eval_forward(batch, outputs)
        if self.labels is not None:
            self.labels = self.labels[self.labels != IGNORED][None]
        return logits
