"""The task of recipes that train an image classifier."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from composer import Evaluator, Trainer
from composer.core import Algorithm, DataSpec
from composer.models import ComposerClassifier
from composer.utils import reproducibility

from cadenza.data import build_image_dataspec
from cadenza.data.images.loader import channels, classes
from cadenza.models import resnet
from cadenza.recipe.record import samples_per_second
from cadenza.recipe.schema import ImageRecipe
from cadenza.recipe.task import Task


class ImageClassification(Task[ImageRecipe]):
    """A ResNet, trained on images."""

    weighs_tokens = False

    def model(self) -> ComposerClassifier:
        reproducibility.seed_all(self.recipe.seed)
        section, data = asdict(self.recipe.model), self.recipe.data
        section.pop("objective")
        channels_last = section.pop("channels_last")
        model = resnet(**section, num_classes=classes(data), channels=channels(data))
        if channels_last:
            model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return model

    def data(self, algorithms: Sequence[Algorithm] = ()) -> tuple[DataSpec, DataSpec]:
        batch, eval_batch = self.batch_sizes()
        cfg, seed = self.recipe.data, self.recipe.seed
        return (
            build_image_dataspec(cfg, train=True, batch_size=batch, seed=seed),
            build_image_dataspec(cfg, train=False, batch_size=eval_batch, seed=seed),
        )

    def results(self, trainer: Trainer, evaluation: DataSpec) -> dict[str, Any]:
        """The record's `train` and `eval`; accuracies lie between 0 and 1.

        The generalization gap is the top-1 accuracy on training images minus that on evaluation images. The
        training images are as many as the evaluation images, and are not augmented.
        """
        time, found = trainer.state.timestamp, _evaluated(trainer, "eval")
        fitted = self._on_training_images(trainer, evaluation)
        return {
            "train": {
                "seconds": time.total_wct.total_seconds(),
                "batches": time.batch.value,
                "images_per_second": samples_per_second(trainer.state),
                "loss": trainer.state.total_loss_dict.get("loss/train/total"),
                "top1": fitted["top1"],
            },
            "eval": {**found, "generalization_gap": fitted["top1"] - found["top1"]},
        }

    def _on_training_images(self, trainer: Trainer, evaluation: DataSpec) -> dict[str, float]:
        """The model's metrics on as many training images as there are evaluation images."""
        loader: Any = evaluation.dataloader
        cfg = self.recipe.data
        count = min(len(loader.dataset), cfg.train_images or len(loader.dataset))
        options = {"batch_size": loader.batch_size, "seed": self.recipe.seed, "judged": True}
        data = build_image_dataspec(replace(cfg, train_images=count), train=True, **options)
        trainer.eval(Evaluator(label="training_images", dataloader=data))
        return _evaluated(trainer, "training_images")

    @staticmethod
    def summary(results: dict[str, Any]) -> str:
        train, evaluation = results["train"], results["eval"]
        top5 = f", top-5 {evaluation['top5']:.2%}" if "top5" in evaluation else ""
        return (
            f"train: {train['batches']} batches in {train['seconds']:.0f} s, "
            f"{train['images_per_second']:,.0f} images/s\n"
            f"eval: top-1 {evaluation['top1']:.2%}{top5}, cross-entropy {evaluation['loss']:.3f} nats; "
            f"top-1 on training images {train['top1']:.2%}, a gap of {evaluation['generalization_gap']:.2%}"
        )


def _evaluated(trainer: Trainer, label: str) -> dict[str, float]:
    values = {name: float(metric.compute()) for name, metric in trainer.state.eval_metrics[label].items()}
    return {"loss": values.pop("CrossEntropy"), **values}
