"""The task of recipes that train a text classifier, or a model that predicts a number."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from composer import Evaluator, Trainer
from composer.core import Algorithm, Callback, DataSpec
from composer.models import HuggingFaceModel
from composer.utils import reproducibility
from torch import Tensor

from cadenza.algorithms import check_rope
from cadenza.data import build_tokenizer
from cadenza.data.labelled.collate import padding_id
from cadenza.data.labelled.loader import build_labelled_dataspec
from cadenza.data.labelled.sets import Example, Sets, read, texts
from cadenza.models import save, text_classifier
from cadenza.recipe import build, checkpoint_tokenizer
from cadenza.recipe.callbacks import show
from cadenza.recipe.classifying import confusion, lines, predictions
from cadenza.recipe.classifying.labels import ordered
from cadenza.recipe.language_modelling import refuse_longer
from cadenza.recipe.parallelism import mark_layers
from cadenza.recipe.record import samples_per_second
from cadenza.recipe.runs.metrics import NAMES, finite
from cadenza.recipe.schema import ClassificationRecipe
from cadenza.recipe.task import Task

OWN = "eval"  # the label of the recipe's own evaluation in the Trainer


class TextClassification(Task[ClassificationRecipe]):
    """A pretrained or a new model with a head, trained on labelled text."""

    weighs_tokens = False

    def __init__(self, recipe: ClassificationRecipe) -> None:
        super().__init__(recipe)
        self.predicted = predictions.Predictions()
        self.apart: dict[str, DataSpec] = {}  # of data.other_eval
        # Of each evaluation, by its label in the Trainer:
        self.judged: dict[str, list[Example]] = {}
        self.outputs: dict[str, Tensor] = {}

    @cached_property
    def sets(self) -> Sets:
        """The examples, read once, with the classes in the order of the loaded model."""
        return ordered(read(self.recipe.data), self.recipe, self.checkpoint, self.scored)

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer: the checkpoint's, loaded, or trained on the training examples."""
        cfg = self.recipe.tokenizer

        def named() -> Any:
            return build_tokenizer(cfg, lambda: texts(self.sets), masked=False)

        if self.checkpoint is None:
            return named()
        return checkpoint_tokenizer.of_run(self.checkpoint, cfg, named)

    def model(self) -> HuggingFaceModel:
        tokenizer, labels = self.tokenizer, self.sets.labels
        checkpoint_tokenizer.refuse_other_words(self.recipe, self.checkpoint)
        reproducibility.seed_all(self.recipe.seed)
        section = asdict(self.recipe.model)
        section.pop("objective")
        checkpointing = section.pop("gradient_checkpointing")
        model = text_classifier(labels, **section, tokenizer=tokenizer)
        model.config.pad_token_id = padding_id(tokenizer)  # decoders find the last token by it
        if checkpointing:
            model.model.gradient_checkpointing_enable()
        mark_layers(model)
        return model

    def data(self, algorithms: Sequence[Algorithm] = ()) -> tuple[DataSpec, DataSpec]:
        batch, eval_batch = self.batch_sizes()
        cfg, packed = self.recipe.data, build.packs_rows(algorithms)
        shared: dict[str, Any] = {"tokenizer": self.tokenizer, "cfg": cfg, "seed": self.recipe.seed}

        def judged(examples: list[Example]) -> DataSpec:
            return build_labelled_dataspec(examples, train=False, batch_size=eval_batch, **shared)

        self.apart = {name: judged(found) for name, found in self.sets.others.items()}
        evaluation = judged(self.sets.evaluation)
        self.judged = {name: examples_of(data) for name, data in {OWN: evaluation, **self.apart}.items()}
        train = build_labelled_dataspec(
            self.sets.train, train=True, batch_size=batch, packed=packed, **shared
        )
        return train, evaluation

    def callbacks(self) -> list[Callback]:
        return [self.predicted]

    def check(self, model: Any) -> None:
        check_rope(model)
        refuse_longer(self.recipe.data.max_seq_len, model)

    def results(self, trainer: Trainer, evaluation: DataSpec) -> dict[str, Any]:
        """The record's entries; scores lie between -1 and 1, the loss is in nats or a squared error."""
        for name, data in self.apart.items():
            trainer.state.eval_metrics.pop(name, None)
            trainer.eval(Evaluator(label=name, dataloader=data))
        self.outputs = {
            name: self.predicted.gathered(name, len(found)) for name, found in self.judged.items()
        }
        scores = {name: self._scores(trainer, name) for name in self.judged}
        time = trainer.state.timestamp
        return {
            "train": {
                "seconds": time.total_wct.total_seconds(),
                "batches": time.batch.value,
                "examples": time.sample.value,
                "examples_per_second": samples_per_second(trainer.state),
                "loss": trainer.state.total_loss_dict.get("loss/train/total"),
            },
            "eval": scores.pop(OWN),
            "others": scores,
            "labels": self.sets.labels,
        }

    def _scores(self, trainer: Trainer, label: str) -> dict[str, Any]:
        metrics, examples = trainer.state.eval_metrics[label], self.judged[label]
        scores = {NAMES.get(name, name): finite(metric.compute()) for name, metric in metrics.items()}
        if not self.sets.labels:
            return {**scores, "examples": len(examples)}
        most = max(Counter(example.label for example in examples).values())
        return {**scores, "most_frequent": most / len(examples), "examples": len(examples)}

    @staticmethod
    def summary(results: dict[str, Any]) -> str:
        return lines.summary(results)

    def keep(self, model: Any, folder: Path) -> None:
        super().keep(model, folder)
        for name, examples in self.judged.items():
            end = "" if name == OWN else f"-{name}"
            self._keep_predictions(examples, self.outputs[name], folder, end)
        if not self.recipe.train.parallelism_config:
            show(f"model: {save(model, folder / 'model', self.tokenizer)}")

    def _keep_predictions(self, examples: list[Example], outputs: Tensor, folder: Path, end: str) -> None:
        labels, path = self.sets.labels, folder / f"predictions{end}.csv"
        predictions.write(path, examples, outputs, labels)
        show(f"predictions: {path}")
        if labels:
            truth = torch.tensor([int(example.label) for example in examples])
            counts = confusion.matrix(outputs, truth)
            show(confusion.draw(counts, labels, self.recipe.name, folder / f"confusion{end}.png"))


def examples_of(data: DataSpec) -> list[Example]:
    """The examples of a data set, without those that have no token."""
    loader: Any = data.dataloader
    return loader.dataset.examples
