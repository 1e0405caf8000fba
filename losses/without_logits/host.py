"""The mixins of a model with a head, and of the Composer model around it, that do without logits."""

from typing import Any

import torch
from torch import Tensor

from cadenza.losses.chunk_pass import Chunked
from cadenza.losses.masked_lm import IGNORED
from cadenza.losses.row_losses import Terms
from cadenza.losses.without_logits import metrics
from cadenza.losses.without_logits.arguments import loss_arguments
from cadenza.losses.without_logits.output_layer import LossJob, LossLayer, working
from cadenza.losses.without_logits.reading import router_loss
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.retype import Mixin, Stage, bound


class ChunkedLayer(LossLayer, of="chunked_loss", stage=Stage.ATTENTION):
    """The output layer."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input)


class WithoutLogits(Mixin, of="chunked_loss", stage=Stage.ATTENTION):
    """A model whose calls with `labels` return a loss and no logits.

    Attributes:

    - `loss_reading`: which loss it is; `loss_terms`: the technique's options;
    - `wants_hits`: whether hits are found in training, too; `row_scores`: those of the last call with labels;
    - `row_weights`: None, or a function of the targets (batch, length), shifted as the loss shifts them, and
      of `document_ids` or None, which returns a factor for the loss of each target (batch, length).
    """

    row_weights: Any = None
    row_scores: Any = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        model: Any = self
        if not args and kwargs.get("labels") is None:
            return super().forward(**kwargs)
        document_ids = kwargs.pop("document_ids", None)  # stock signatures may have no place for it
        given = {} if document_ids is None else {"document_ids": document_ids}
        named, others = bound(model, args, kwargs)
        if (labels := named.pop("labels", None)) is None:
            return super().forward(*args, **kwargs, **given)
        wants_dict = named.pop("return_dict", others.pop("return_dict", None))
        wants_dict = model.config.return_dict if wants_dict is None else wants_dict
        if model.row_weights is not None and "labelled" in others:
            raise SurgeryError("weights of rows need all rows; undo sparse_prediction")
        job = _job(model, labels, document_ids, loss_arguments(model, model.loss_reading, others))
        with working(model.get_output_embeddings(), job):
            output = super().forward(**named, **others, **given, return_dict=True)
        loss, self.row_scores = job.found(output)
        if (router := router_loss(model, output)) is not None:
            loss = loss + router.to(loss.device)
        output = type(output)(**{**output, "loss": loss, "logits": None})
        return output if wants_dict else output.to_tuple()


def _job(model: Any, labels: Tensor, document_ids: Any, options: dict[str, Any]) -> LossJob:
    ignored = options.get("ignore_index", IGNORED)
    targets = options.get("shift_labels") if model.loss_reading.shifts else None
    targets = model.loss_reading.targets(labels, ignored) if targets is None else targets
    weigh = model.row_weights
    trains = model.training and torch.is_grad_enabled()
    own = model.loss_terms
    smoothing = options.get("label_smoothing", own["label_smoothing"])
    how = Chunked(
        Terms(model.loss_reading.map, smoothing, own["z_loss"]), own["rows"], model.wants_hits or not trains
    )
    weights = None if weigh is None else weigh(targets, document_ids)
    return LossJob(targets, ignored, how, weights, options.get("num_items_in_batch"))


class MetricsWithoutLogits(Mixin, of="chunked_loss", stage=Stage.ATTENTION):
    """A Composer model whose metrics are updated by the losses and hits of the labelled rows."""

    def eval_forward(self, batch: Any, outputs: Any = None) -> Any:
        model: Any = self
        if batch.get("mode") in ("generate", "icl_task") or not (model.use_logits and "labels" in batch):
            return super().eval_forward(batch, outputs)
        if outputs is None:
            self.forward(batch)
        labels = batch.pop("labels")  # as Composer's own does
        scores, host = self.scored.row_scores, self.scored
        if scores is None or not metrics.same_labels(scores, host.loss_reading.targets(labels)):
            raise SurgeryError("chunked_loss: these outputs aren't those of the model's last call")
        self.labels = scores.labels
        return scores

    def update_metric(self, batch: Any, outputs: Any, metric: Any) -> dict:
        if not isinstance(outputs, metrics.RowScores):
            return super().update_metric(batch, outputs, metric)
        metrics.update(metric, outputs)
        return {}

    @property
    def scored(self) -> Any:
        """The model with a head within."""
        return next(module for module in self.modules() if isinstance(module, WithoutLogits))
