"""Run a recipe: train, evaluate and record, or only build (`dry_run`).

0. `started`: a pretrained run becomes a folder, and the techniques of its model are added to the recipe's.
1. `trainer_settings`: an error in the recipe is raised before anything is built; `places.prepare`: so is a
   folder that can't be written to.
2. `checkpoints.to_load`: a checkpoint that the run can't resume from is refused before it is loaded.
3. `Task.model` and `Task.data`: the stock model and its batches.
4. `build_trainer`: Composer applies the surgeries and loads the checkpoint.
5. `Task.check`, training, `Task.results`, `Task.summary`, `Task.keep`, and `ended.record_of`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from composer import Trainer
from composer.core import Algorithm, DataSpec
from composer.models import ComposerModel
from composer.utils import dist

from cadenza.recipe import checkpoints, record
from cadenza.recipe.callbacks import show
from cadenza.recipe.classifying import teacher
from cadenza.recipe.classifying.task import TextClassification
from cadenza.recipe.compiling import compile_layers
from cadenza.recipe.continuing import scores
from cadenza.recipe.continuing.first import evaluate_first, texts
from cadenza.recipe.continuing.surgeries import started
from cadenza.recipe.cpu import precision
from cadenza.recipe.cpu.memory import keep_freed_memory
from cadenza.recipe.image_classification import ImageClassification
from cadenza.recipe.language_modelling import LanguageModelling
from cadenza.recipe.loading.blame import blamed
from cadenza.recipe.optimizers import optimizer_for
from cadenza.recipe.runs import ended, kept_recipe, places
from cadenza.recipe.runs.stopping import stops_in_a_line
from cadenza.recipe.schema import ClassificationRecipe, ImageRecipe, Run
from cadenza.recipe.task import Task
from cadenza.recipe.trainer import build_trainer, trainer_settings
from cadenza.surgery import Report, Surgery


def task_of(recipe: Any) -> Task:
    """The task that fits the class of `recipe`; torch.distributed is set up first, for this rank's device."""
    dist.initialize_dist("gpu" if torch.cuda.is_available() else "cpu")
    if isinstance(recipe, ClassificationRecipe):
        return TextClassification(recipe)
    return ImageClassification(recipe) if isinstance(recipe, ImageRecipe) else LanguageModelling(recipe)


@blamed
def dry_run(recipe: Run) -> tuple[list[Report], dict[str, int]]:
    """Build everything and train nothing; the surgeries' reports, and parameter counts before and after."""
    recipe = started(recipe)
    algorithms = trainer_settings(recipe)["algorithms"]
    task = task_of(recipe)
    task.checkpoint = checkpoints.to_load(recipe, algorithms)
    precision.choose(recipe.train.precision, task.checkpoint)
    model = task.model()
    task.data(algorithms)
    before = parameter_count(model)
    optimizer = optimizer_for(recipe.optimizer, model)
    reports = [a.operate(model, optimizer) for a in algorithms if isinstance(a, Surgery)]
    task.check(model)
    teacher.give(task, algorithms)
    return reports, {"stock": before, "after_surgery": parameter_count(model)}


@blamed
def train(recipe: Run) -> Path | None:
    """Train and evaluate; returns the path of the record on the first rank and None on the others.

    Where nothing was left to train, only the run's own recipe has a record; for another one it returns None.
    """
    recipe = started(recipe)
    settings = trainer_settings(recipe)
    if dist.get_global_rank() == 0:
        places.prepare(recipe)
    with places.full_disk_named(recipe.folder):
        return _train(recipe, settings)


def _train(recipe: Run, settings: dict[str, Any]) -> Path | None:
    if not torch.cuda.is_available():
        keep_freed_memory()
    task = task_of(recipe)
    built = built_of(task, settings)
    trainer = built.trainer
    _show_surgeries(trainer)
    task.check(trainer.state.model)
    trained = _fit(task, trainer)
    results = {**task.results(trainer, built.evaluation), **texts(trainer, task.others)}
    counts = {"stock": built.stock, "after_surgery": parameter_count(trainer.state.model)}
    trainer.close()
    if dist.get_global_rank() != 0:
        return None
    show("\n".join([task.summary(results), *scores.lines(results)]))
    if not trained and not kept_recipe.is_of(task.checkpoint, recipe):
        show("no record: nothing was trained by this recipe")
        return None
    task.keep(built.model, recipe.folder)
    return ended.record_of(recipe, trained, {**_facts(recipe, trainer), "parameters": counts, **results})


@blamed
def evaluate(recipe: Run) -> tuple[str, dict[str, Any]]:
    """Score what the recipe loads on its evaluation data; a line for the screen, and the record's `eval`."""
    recipe = started(recipe)
    settings = {**trainer_settings(recipe), "callbacks": []}  # no rows for a run's metrics
    task = task_of(recipe)
    task.scored = True
    built = built_of(task, settings)
    built.trainer.eval()
    results = {**task.results(built.trainer, built.evaluation), **texts(built.trainer, task.others)}
    built.trainer.close()
    lines = task.summary(results).splitlines()[1:]
    others = {name: text["after"] for name, text in results.get("texts", {}).items() if name != scores.OWN}
    found = {**results["eval"], **({"texts": others} if others else {}), **_others(results)}
    return "\n".join([*lines, *scores.lines(results)]).removeprefix("eval: "), found


def _others(results: dict[str, Any]) -> dict[str, Any]:
    """The entry `others` of a classifier's results, if there is one that isn't empty."""
    return {"others": results["others"]} if results.get("others") else {}


@dataclass
class Built:
    """What a run consists of; `stock` counts the parameters before surgery."""

    model: ComposerModel
    evaluation: DataSpec
    trainer: Trainer
    stock: int


def built_of(task: Task, settings: dict[str, Any]) -> Built:
    """Steps 2 to 4, with the Trainer's arguments `settings`."""
    task.checkpoint = checkpoints.to_load(task.recipe, settings["algorithms"])
    model = task.model()
    stock = parameter_count(model)
    train_data, evaluation = task.data(settings["algorithms"])
    trainer = build_trainer(task, settings, model, train_data, evaluation)
    if task.recipe.train.compile_layers:
        compile_layers(trainer.state.model)
    return Built(model, evaluation, trainer, stock)


def _fit(task: Task, trainer: Trainer) -> bool:
    """Train to the end; a run that has reached its end already is only evaluated. Whether it was trained."""
    recipe, now, end = task.recipe, trainer.state.timestamp, trainer.state.max_duration
    if end is not None and now >= end:
        show(f"nothing left to train: batch {now.batch.value} is the end ({end})")
        trainer.eval()
        return False
    teacher.give(task, trainer.state.algorithms)
    if dist.get_global_rank() == 0:
        kept_recipe.write(recipe)
    with checkpoints.saving_in(recipe.checkpoints), stops_in_a_line(recipe.checkpoints), closing(trainer):
        evaluate_first(trainer, task.others)
        trainer.fit()
    return True


@contextmanager
def closing(trainer: Trainer) -> Iterator[None]:
    """Close `trainer` if it fails, so that its progress bar ends before the error is printed."""
    try:
        yield
    except BaseException:
        trainer.close()
        raise


def parameter_count(model: torch.nn.Module) -> int:
    """The number of parameters; a tied parameter counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def _facts(recipe: Run, trainer: Trainer) -> dict[str, Any]:
    reports = _reports(trainer.state.algorithms)
    return {
        "recipe": asdict(recipe),
        "commit": record.commit(),
        "versions": record.versions(),
        "device": record.devices(str(trainer.state.device.name)),
        "precision": trainer.state.precision.value,
        "surgeries": {r.surgery: [asdict(change) for change in r.changes] for r in reports},
    }


def _reports(algorithms: Sequence[Algorithm]) -> list[Report]:
    """The reports of the surgeries that found something to change."""
    surgeries = (a for a in algorithms if isinstance(a, Surgery))
    return [surgery.report for surgery in surgeries if surgery.report is not None]


def _show_surgeries(trainer: Trainer) -> None:
    for report in _reports(trainer.state.algorithms):
        show(str(report).splitlines()[0])
    show(f"parameters: {parameter_count(trainer.state.model):,}")
