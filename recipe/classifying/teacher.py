"""The teacher of `distillation`: loaded as `algorithms.distillation.teacher` names it."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from composer.core import Algorithm
from transformers import AutoModelForSequenceClassification

from cadenza.algorithms import Distillation
from cadenza.data import DataError, TokenizerConfig, build_tokenizer
from cadenza.data.images.loader import channels, classes
from cadenza.data.places import home
from cadenza.models import ModelError, export, load_resnet
from cadenza.models.pretrained import held_in, model_folder, pretrained_model
from cadenza.models.text_classifier import labels_of
from cadenza.recipe.callbacks import show
from cadenza.recipe.checkpoint_tokenizer import alike
from cadenza.recipe.classifying.task import TextClassification
from cadenza.recipe.errors import RecipeError
from cadenza.recipe.task import Task
from cadenza.surgery.errors import CheckpointError

KEY = "algorithms.distillation.teacher"


def give(task: Task, algorithms: Sequence[Algorithm]) -> None:
    """Give `distillation`, if it is among `algorithms`, its network.

    Raises:
        RecipeError: there is no such model, it can't be read, or it has other classes or other words.
    """
    for algorithm in algorithms:
        if isinstance(algorithm, Distillation):
            try:
                algorithm.give(_loaded(task, algorithm.teacher))
            except (CheckpointError, ModelError) as error:
                said = str(error).replace("pass trusted=True (--trust)", "set train.trust_load_path=true")
                raise RecipeError(f"{KEY}: {said.removeprefix('model.pretrained: ')}") from error
            show(f"distillation: the teacher is {algorithm.teacher}")


def _loaded(task: Task, name: str) -> Any:
    return _of_text(task, name) if isinstance(task, TextClassification) else _of_images(task, name)


def _of_images(task: Any, name: str) -> Any:
    found = held_in(home(name))
    if found is None:
        raise RecipeError(
            f"{KEY}: {name} is no run with a checkpoint, no checkpoint and no exported folder; name one"
        )
    with TemporaryDirectory() as scratch:
        trusted = task.recipe.train.trust_load_path
        network = load_resnet(
            found if found.is_dir() else export(found, Path(scratch) / "model", trusted=trusted)
        )
    _refuse_other(name, "classes", network.fc.out_features, classes(task.recipe.data))
    _refuse_other(name, "channels", network.conv1.in_channels, channels(task.recipe.data))
    return network.to(memory_format=torch.channels_last) if task.recipe.model.channels_last else network


def _of_text(task: TextClassification, name: str) -> Any:
    folder = model_folder(name, task.recipe.train.trust_load_path)
    labels = labels_of(folder)
    if labels is None:
        raise RecipeError(f"{KEY}: {name} is no classifier; fine-tune it first")
    _refuse_other(name, "classes", labels, task.sets.labels)
    _refuse_other_words(task, name, folder)
    return pretrained_model(AutoModelForSequenceClassification, folder, {}, task.recipe.model.attention)


def _refuse_other(name: str, what: str, theirs: Any, ours: Any) -> None:
    if theirs != ours:
        raise RecipeError(f"{KEY}: {name} has the {what} {theirs}, the model {ours}; they must be the same")


def _refuse_other_words(task: TextClassification, name: str, folder: str) -> None:
    try:
        theirs = build_tokenizer(TokenizerConfig(name=folder), lambda: [], masked=False)
    except DataError as error:
        raise RecipeError(f"{KEY}: {name} has no tokenizer that can be read ({error})") from error
    if not alike(theirs, task.tokenizer):
        sizes = f"{len(theirs):,} words, the model's {len(task.tokenizer):,}"
        raise RecipeError(f"{KEY}: {name} has another tokenizer ({sizes}); ids would mean other words")
