"""Run a recipe: train, evaluate and record, or only build (`dry_run`).

1. `trainer_settings`: an error in the recipe is raised before anything is built.
2. `checkpoints.to_load`: a checkpoint that the run can't resume from is refused before it is loaded.
3. `Task.model` and `Task.data`: the stock model and its batches.
4. `build_trainer`: Composer applies the surgeries and loads the checkpoint.
5. `Task.check`, training, `Task.results`, `Task.summary`, `Task.keep`, and `run.json`.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from composer import Trainer
from composer.core import Algorithm
from composer.utils import dist

from cadenza.recipe import checkpoints, record
from cadenza.recipe.callbacks import show
from cadenza.recipe.image_classification import ImageClassification
from cadenza.recipe.language_modelling import LanguageModelling
from cadenza.recipe.schema import ImageRecipe, Run
from cadenza.recipe.task import Task
from cadenza.recipe.trainer import build_trainer, trainer_settings
from cadenza.surgery import Report, Surgery


def task_of(recipe: Any) -> Task:
    """The task that fits the class of `recipe`; torch.distributed is set up first, for this rank's device."""
    dist.initialize_dist("gpu" if torch.cuda.is_available() else "cpu")
    return ImageClassification(recipe) if isinstance(recipe, ImageRecipe) else LanguageModelling(recipe)


def dry_run(recipe: Run) -> tuple[list[Report], dict[str, int]]:
    """Build everything and train nothing; the surgeries' reports, and parameter counts before and after."""
    algorithms = trainer_settings(recipe)["algorithms"]
    task = task_of(recipe)
    model = task.model()
    task.data(algorithms)
    before = parameter_count(model)
    reports = [a.operate(model) for a in algorithms if isinstance(a, Surgery)]
    return reports, {"stock": before, "after_surgery": parameter_count(model)}


def train(recipe: Run) -> Path | None:
    """Train and evaluate; returns the path of the record on the first rank and None on the others."""
    settings = trainer_settings(recipe)
    task = task_of(recipe)
    task.checkpoint = checkpoints.to_load(recipe, settings["algorithms"])
    model = task.model()
    stock = parameter_count(model)
    data = task.data(settings["algorithms"])
    trainer = build_trainer(task, settings, model, *data)
    _show_surgeries(trainer)
    task.check(trainer.state.model)
    _fit(recipe, trainer)
    results = task.results(trainer, data[1])
    counts = {"stock": stock, "after_surgery": parameter_count(trainer.state.model)}
    trainer.close()
    if dist.get_global_rank() != 0:
        return None
    show(task.summary(results))
    task.keep(model, recipe.folder)
    return record.write(recipe.folder, {**_facts(recipe, trainer), "parameters": counts, **results})


def _fit(recipe: Run, trainer: Trainer) -> None:
    """Train to the end; a run that has reached its end already is only evaluated."""
    now, end = trainer.state.timestamp, trainer.state.max_duration
    if end is not None and now >= end:
        show(f"nothing left to train: batch {now.batch.value} is the end ({end})")
        return trainer.eval()
    with checkpoints.saving_in(recipe.checkpoints):
        trainer.fit()


def parameter_count(model: torch.nn.Module) -> int:
    """The number of parameters; a tied parameter counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def _facts(recipe: Run, trainer: Trainer) -> dict[str, Any]:
    reports = _reports(trainer.state.algorithms)
    return {
        "recipe": asdict(recipe),
        "versions": record.versions(),
        "device": {"kind": str(trainer.state.device.name), "world_size": dist.get_world_size()},
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
