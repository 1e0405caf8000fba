"""An image classifier's recipe: its model, its data, and what came of it."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from composer import Evaluator, Trainer
from composer.core import Algorithm, DataSpec
from composer.models import ComposerClassifier
from composer.utils import dist, reproducibility

from cadenza.data import build_image_dataspec
from cadenza.data.images import channels, classes
from cadenza.models import resnet
from cadenza.recipe import build
from cadenza.recipe.integers import keep_integers
from cadenza.recipe.progress import samples_per_second
from cadenza.recipe.schema import ImageRecipe

by_tokens = False


def model_and_tokenizer(recipe: ImageRecipe) -> tuple[ComposerClassifier, None]:
    """The stock model, as it is before any technique; images need no tokenizer."""
    reproducibility.seed_all(recipe.seed)
    section = asdict(recipe.model)
    section.pop("objective")
    last = section.pop("channels_last")
    model = resnet(**section, num_classes=classes(recipe.data), channels=channels(recipe.data))
    if last:
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return model, None


def dataspecs(
    recipe: ImageRecipe, tokenizer: None = None, algorithms: Sequence[Algorithm] = ()
) -> tuple[DataSpec, DataSpec]:
    """The training and the evaluation data of this rank."""
    train, world = recipe.train, dist.get_world_size()
    batch = build.per_device(train.global_batch_size, world, "train.global_batch_size")
    eval_batch = build.per_device(
        train.eval_batch_size or train.global_batch_size, world, "train.eval_batch_size"
    )
    return (
        build_image_dataspec(recipe.data, train=True, batch_size=batch, seed=recipe.seed),
        build_image_dataspec(recipe.data, train=False, batch_size=eval_batch, seed=recipe.seed),
    )


def check(model: Any) -> None:
    """Nothing can be wrong with a classifier that its construction doesn't say."""


def results(recipe: ImageRecipe, trainer: Trainer, evaluation: DataSpec) -> dict[str, Any]:
    """What is recorded of a finished run; accuracies are shares of one.

    The generalization gap is top-1 accuracy on as many training images as there are to evaluate, taken as
    these are, less that on evaluation images.
    """
    now, found = trainer.state.timestamp, _evaluated(trainer, "eval")
    fitted = _on_training_images(recipe, trainer, evaluation)
    return {
        "train": {
            "seconds": now.total_wct.total_seconds(),
            "batches": now.batch.value,
            "images_per_second": samples_per_second(trainer.state),
            "loss": trainer.state.total_loss_dict.get("loss/train/total"),
            "top1": fitted["top1"],
        },
        "eval": {**found, "generalization_gap": fitted["top1"] - found["top1"]},
    }


def keep(recipe: ImageRecipe, model: Any, tokenizer: None, folder: Path) -> None:
    """Leave beside the record what a checkpoint doesn't hold."""
    keep_integers(recipe, model, folder)


def said(results: dict[str, Any]) -> str:
    """The results for people."""
    train, evaluation = results["train"], results["eval"]
    top5 = f", top-5 {evaluation['top5']:.2%}" if "top5" in evaluation else ""
    return (
        f"train: {train['batches']} batches in {train['seconds']:.0f} s, "
        f"{train['images_per_second']:,.0f} images/s\n"
        f"eval: top-1 {evaluation['top1']:.2%}{top5}, cross-entropy {evaluation['loss']:.3f} nats; "
        f"top-1 on training images {train['top1']:.2%}, a gap of {evaluation['generalization_gap']:.2%}"
    )


def _on_training_images(recipe: ImageRecipe, trainer: Trainer, evaluation: DataSpec) -> dict[str, float]:
    """Metrics on so many training images, without augmentation, as there are to evaluate."""
    loader: Any = evaluation.dataloader
    count = min(len(loader.dataset), recipe.data.train_images or len(loader.dataset))
    options = {"batch_size": loader.batch_size, "seed": recipe.seed, "judged": True}
    data = build_image_dataspec(replace(recipe.data, train_images=count), train=True, **options)
    trainer.eval(Evaluator(label="training_images", dataloader=data))  # with all metrics of the model
    return _evaluated(trainer, "training_images")


def _evaluated(trainer: Trainer, label: str) -> dict[str, float]:
    values = {name: float(metric.compute()) for name, metric in trainer.state.eval_metrics[label].items()}
    return {"loss": values.pop("CrossEntropy"), **values}
