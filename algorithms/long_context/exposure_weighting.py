"""Exposure weighting: targets with much of their own document before them weigh more."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cadenza.attention.document_ids import TakesDocumentIds, pass_document_ids
from cadenza.losses.exposure import effective_context, exposure_weights
from cadenza.losses.masked_lm import IGNORED
from cadenza.losses.next_token import check_loss, prove_next_token, shifted, weighted_loss
from cadenza.losses.without_logits.host import WithoutLogits
from cadenza.losses.without_logits.reading import router_loss
from cadenza.options import Range, option
from cadenza.surgery.engine import Site, Surgery
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.optimizers import Optimizers
from cadenza.surgery.parameters import set_attributes
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Mixin, Stage, Undo, bound, mix

__all__ = ["ExposureWeighting", "apply_exposure_weighting"]


@dataclass(repr=False, eq=False)
class ExposureWeighting(Surgery):
    """Weighs the targets of a causal LM by how much of their own document they are predicted from.

    EXACT (arXiv 2605.10544): in packed windows most targets have a short effective context, which is the
    number of tokens before them in their own document. Here the targets of a window with a context of at
    least `threshold` share a fixed extra weight. Their contexts fall into buckets from `threshold` on, each
    twice as wide as the one before. Each bucket that isn't empty gets the same part of the extra weight, and
    each target in it the same part of that: an inverse frequency. All other targets weigh 1. The loss is the
    weighted sum over the number of targets, so a window without a long target has the stock loss.

    The abstract of the paper fixes the effective context, the threshold, the fixed extra weight and the
    inverse frequency of log-spaced buckets. Chosen here: buckets of powers of two from the threshold on, the
    extra weight as a part of the plain one, `largest`, and frequencies within a window. So weights don't
    depend on batch, micro-batch or number of devices, and need no state; how frequent a bucket is in all of
    the data plays no part. Documents count in every mode of `anchor_attention`, in `full` as well, though a
    target then sees the whole window.

    Use it to extend the context of a pretrained model on windows of documents. It costs no measurable time.
    A batch holds `document_ids` as for `anchor_attention`; without them each row is one document. Evaluation,
    metrics and calls without `labels` stay plain. Its gain is the authors' claim alone: RULER rises by 17.9
    and 16.1 points for Llama-3.2-3B, by 10.7 and 5.6 for Qwen2.5-0.5B.

    Works on any causal LM of transformers whose loss is the cross-entropy of the next token, which a short
    call proves. It combines with `chunked_loss`, without which the logits take the memory that they take in
    stock code.
    """

    threshold: int = option(
        meaning="Targets with at least this many tokens of their document before them are long; for example "
        "the length that the model was trained at.",
        valid=Range("[1, 1073741824]"),
    )
    extra: float = option(
        0.5,
        "What the long targets of a window share, as a part of the plain weight of all its targets.",
        Range("[0, 1000]"),
    )
    largest: float | None = option(
        16.0,
        "The most that a target gets beside its plain weight, since few long targets would share a large "
        "weight; what is above is given to no other. null: no limit.",
        Range("(0, 1000000]"),
    )
    stage = Stage.ATTENTION
    keeps_outputs = True

    def edit(self, site: Site) -> Iterator[Undo]:
        module: Any = site.module
        if module is site.host and module.get_output_embeddings() is not None:
            prove_next_token(module)
            yield set_attributes(module, exposure=dict(self.options))
            yield mix(module, WeighsTargets)
        elif "model_forward_args" in vars(module) and _has_head(module):
            yield pass_document_ids(module)


def _has_head(wrapper: Any) -> bool:
    return wrapper.model.get_output_embeddings() is not None


def apply_exposure_weighting(
    model: nn.Module,
    threshold: int,
    extra: float = 0.5,
    largest: float | None = 16.0,
    *,
    optimizers: Optimizers = None,
) -> Report:
    """Weigh the targets of `model` by their effective context in training, in place; see `ExposureWeighting`.

    Raises:
        NoEffect: the model contains no language model with an output layer.
        SurgeryError: its loss isn't the cross-entropy of the next token.
    """
    return ExposureWeighting(threshold, extra, largest).operate(model, optimizers)


class WeighsTargets(Mixin, of="exposure_weighting", stage=Stage.ATTENTION):
    """A causal LM whose loss in training weighs its targets by `exposure`, the options."""

    exposure: dict[str, Any]

    def forward(self, *args: Any, document_ids: Tensor | None = None, **kwargs: Any) -> Any:
        model: Any = self
        if document_ids is not None and isinstance(self, TakesDocumentIds):
            kwargs["document_ids"] = document_ids
        named, others = bound(model, args, kwargs)
        if not self.training or named.get("labels") is None:
            return super().forward(*args, **kwargs)
        ignored = others.get("ignore_index", IGNORED)
        weigh = partial(_weigh, model.exposure, _documents(named, document_ids), ignored)
        if not isinstance(self, WithoutLogits):
            return self._with_logits(named, others, weigh)
        self.row_weights = weigh
        try:
            return super().forward(*args, **kwargs)
        finally:
            del self.row_weights

    def _with_logits(self, named: dict[str, Any], others: dict[str, Any], weigh: Any) -> Any:
        model: Any = self
        check_loss(model, others)
        labels = named.pop("labels")
        wants_dict = named.pop("return_dict", others.pop("return_dict", None))
        wants_dict = model.config.return_dict if wants_dict is None else wants_dict
        output = super().forward(**named, **others, return_dict=True)
        targets = others.get("shift_labels")
        targets = shifted(labels, others.get("ignore_index", IGNORED)) if targets is None else targets
        loss = weighted_loss(output["logits"], targets, weigh(targets), others)
        if (router := router_loss(model, output)) is not None:
            loss = loss + router.to(loss.device)
        output = type(output)(loss=loss, **output)
        return output if wants_dict else output.to_tuple()


def _weigh(
    exposure: dict[str, Any], documents: Tensor, ignored: int, targets: Tensor, document_ids: Any = None
) -> Tensor:
    """(batch, length), the weight of each next token; `document_ids` are in `documents` already."""
    context = shifted(effective_context(documents.to(targets.device)), 0)
    return exposure_weights(context, targets != ignored, **exposure)


def _documents(named: dict[str, Any], document_ids: Tensor | None) -> Tensor:
    """(batch, length) numbers of documents; without `document_ids` each row is one, beside its padding."""
    labels: Tensor = named["labels"]
    given = [document_ids, named.get("attention_mask"), torch.ones_like(labels)]
    documents: Tensor = next(each for each in given if each is not None)
    if documents.shape != labels.shape:
        shapes = f"{tuple(documents.shape)} for labels of {tuple(labels.shape)}"
        raise SurgeryError(f"exposure_weighting: document_ids or attention_mask has shape {shapes}")
    return documents
