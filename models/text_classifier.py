"""Hugging Face models that classify sequences as Composer models: new, or on top of a pretrained one."""

import warnings
from typing import Any

from composer.metrics import LanguageCrossEntropy
from composer.models import HuggingFaceModel
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import (
    BinaryF1Score,
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassMatthewsCorrCoef,
)
from torchmetrics.regression import MeanSquaredError, PearsonCorrCoef, SpearmanCorrCoef
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from cadenza.models.built import built, fitting_tokenizer, refuse_larger
from cadenza.models.errors import ModelError
from cadenza.models.pretrained.loading import CLASSIFIER, is_local


class TextClassifier(HuggingFaceModel):
    """Composer's wrapper, whose outputs of an evaluation are (examples, classes), or (examples,) numbers."""

    def eval_forward(self, batch: Any, outputs: Any = None) -> Tensor:
        if outputs is None:
            outputs = self.forward({name: value for name, value in batch.items() if name != "labels"})
        logits = outputs["logits"].float()
        return logits.squeeze(-1) if logits.shape[-1] == 1 else logits

    def update_metric(self, batch: Any, outputs: Any, metric: Metric) -> dict:
        metric.update(outputs, batch["labels"])
        return {}


class F1OfSecond(BinaryF1Score):
    """F1 of the second of two classes, from logits (examples, 2)."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(preds.argmax(-1), target)


def text_classifier(
    labels: list[str],
    model_type: str = "bert",
    pretrained: str | None = None,
    config: dict[str, Any] | None = None,
    attention: str = "sdpa",
    tokenizer: Any = None,
) -> TextClassifier:
    """A Hugging Face model for sequence classification as a Composer model.

    The output layer is new, unless the weights are of a classifier with the same labels; other layers of a
    head, such as BERT's pooler, are kept where the weights have them.

    Args:
        labels: the classes in the order of their ids; empty: the model predicts a number.
        model_type, pretrained, config, attention, tokenizer: as in `masked_lm`.

    Raises:
        ModelError: as in `masked_lm`; also a model type without such a head.
    """
    fields = {**label_fields(labels), **(config or {})}
    model = built(AutoModelForSequenceClassification, model_type, pretrained, fields, attention, tokenizer)
    if pretrained is not None and labels_of(pretrained) != labels:
        renew_output_layer(model)
    refuse_larger(tokenizer, model)
    with fitting_tokenizer():
        return TextClassifier(
            model,
            tokenizer=tokenizer,
            metrics=[],
            eval_metrics=metrics(len(labels)),
            allow_embedding_resizing=False,
        )


def label_fields(labels: list[str]) -> dict[str, Any]:
    """The fields of a config that say what the outputs are."""
    if not labels:
        return {"num_labels": 1, "problem_type": "regression"}
    names = dict(enumerate(labels))
    ids = {name: index for index, name in names.items()}
    kind = "single_label_classification"
    return {"num_labels": len(labels), "id2label": names, "label2id": ids, "problem_type": kind}


def labels_of(pretrained: str) -> list[str] | None:
    """The classes of a pretrained classifier, empty for a number; None if it is another kind of model.

    A model whose config can't be read counts as another kind: loading it says why.
    """
    try:
        fields, _ = PreTrainedConfig.get_config_dict(pretrained, local_files_only=is_local(pretrained))
    except (OSError, ValueError):
        return None
    return classes_in(fields)


def classes_in(fields: dict[str, Any]) -> list[str] | None:
    """The same, by the fields of a config."""
    if not any(name.endswith(CLASSIFIER) for name in fields.get("architectures") or ()):
        return None
    names = fields.get("id2label") or {}
    if fields.get("problem_type") == "regression" and len(names) < 2:
        return []
    return [names[index] for index in sorted(names, key=int)]


def renew_output_layer(model: PreTrainedModel) -> None:
    """Draw the weights of the last layer of the head anew, by the config's `initializer_range`."""
    base, count = f"{model.base_model_prefix}.", model.config.num_labels
    heads = [module for path, module in model.named_modules() if not path.startswith(base)]
    outputs = [each for each in heads if isinstance(each, nn.Linear) and each.out_features == count]
    if not outputs:
        raise ModelError(f"model: no output layer of {count} is found in the head of {type(model).__name__}")
    nn.init.normal_(outputs[-1].weight, std=getattr(model.config, "initializer_range", None) or 0.02)
    if outputs[-1].bias is not None:
        nn.init.zeros_(outputs[-1].bias)


def metrics(classes: int) -> list[Metric]:
    """The metrics of an evaluation, by torchmetrics: of so many classes, or of numbers (0)."""
    if not classes:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Metric `SpearmanCorrcoef` will save all targets")
            return [MeanSquaredError(), SpearmanCorrCoef(), PearsonCorrCoef()]
    f1 = F1OfSecond() if classes == 2 else MulticlassF1Score(classes, average="macro")
    accuracy = MulticlassAccuracy(classes, average="micro")
    # Composer's `CrossEntropy` is a mean over batches, in which those of a smaller last one weigh more.
    return [LanguageCrossEntropy(), accuracy, f1, MulticlassMatthewsCorrCoef(classes)]
