"""Composer's Trainer, from a recipe."""

from typing import Any

import torch
from composer import Trainer
from composer.core import Callback, DataSpec
from composer.models import ComposerModel
from composer.utils import dist
from torch.utils.data import IterableDataset

from cadenza.recipe import build, checkpoints
from cadenza.recipe.callbacks import Progress, RestoresRandomness, Resuming, StopsAtNaN, show
from cadenza.recipe.continuing.first import FirstEvaluation
from cadenza.recipe.cpu import precision
from cadenza.recipe.cpu.autocast import CpuAutocast
from cadenza.recipe.optimizers import optimizer_for, refuse_unusable
from cadenza.recipe.optimizers.muon import Arranges, MuonAdamW
from cadenza.recipe.parallelism import parallelism
from cadenza.recipe.runs.metrics import Metrics
from cadenza.recipe.schedules import WarmupStableDecay
from cadenza.recipe.schema import Run, Train
from cadenza.recipe.task import Task


def trainer_settings(recipe: Run) -> dict[str, Any]:
    """The Trainer's arguments that need neither model nor data, so that errors in them are raised first."""
    section, cuda = recipe.train, torch.cuda.is_available()
    batch = build.per_device(section.global_batch_size, dist.get_world_size(), "train.global_batch_size")
    precision.check(section.precision, cuda)
    refuse_unusable(recipe.optimizer, section)
    microbatch = build.microbatch_size(section.device_train_microbatch_size, batch, cuda)
    _show_choice(section, microbatch)
    return {
        "run_name": recipe.name,
        "seed": recipe.seed,
        "algorithms": [*build.algorithms(recipe.algorithms), *build.clipping(section.clip_norm)],
        "schedulers": build.scheduler(recipe.scheduler, section.max_duration),
        "loggers": build.loggers(recipe.loggers),
        "callbacks": callbacks(recipe),
        "precision": section.precision,
        "device_train_microbatch_size": microbatch,
        "max_duration": section.max_duration,
        "eval_interval": section.eval_interval,
        "deterministic_mode": section.deterministic,
        "parallelism_config": parallelism(section.parallelism_config, cuda),
        **_checkpoints(recipe),
    }


def build_trainer(
    task: Task, settings: dict[str, Any], model: ComposerModel, train: DataSpec, evaluation: DataSpec
) -> Trainer:
    """Composer's Trainer; building it applies the surgeries and loads the checkpoint."""
    optimizer = optimizer_for(task.recipe.optimizer, model)
    if isinstance(optimizer, MuonAdamW):
        settings = {**settings, "callbacks": [*settings["callbacks"], Arranges(optimizer)]}
    trainer = Trainer(
        model=model,
        train_dataloader=train,
        eval_dataloader=evaluation,
        eval_subset_num_batches=_all_batches(evaluation),
        optimizers=optimizer,
        progress_bar=False,
        accumulate_train_batch_on_tokens=task.weighs_tokens,
        **{**settings, **_precision(task, settings)},
    )
    trainer.state.callbacks += [RestoresRandomness(trainer), *task.callbacks()]
    if isinstance(schedule := settings["schedulers"], WarmupStableDecay):
        schedule.refuse_jump(trainer.state)
    checkpoints.count_earlier(trainer, task.recipe)
    return trainer


def _precision(task: Task, settings: dict[str, Any]) -> dict[str, Any]:
    """The Trainer's arguments for the chosen precision; amp_bf16 on a CPU is a callback."""
    resumed = None if settings["load_weights_only"] else task.checkpoint
    chosen = precision.choose(settings["precision"], resumed)
    if chosen == "amp_bf16" and not torch.cuda.is_available():
        return {"precision": "fp32", "callbacks": [CpuAutocast(), *settings["callbacks"]]}
    return {"precision": chosen}


def callbacks(recipe: Run) -> list[Callback]:
    """The callbacks of every run, with the progress bar unless the recipe turns it off."""
    always: list[Callback] = [Resuming(recipe.seed), StopsAtNaN(recipe.folder), Metrics(recipe.folder)]
    if recipe.train.eval_first:
        always.append(FirstEvaluation())
    return [*always, Progress()] if recipe.train.progress_bar else always


def _checkpoints(recipe: Run) -> dict[str, Any]:
    section = recipe.train
    return {
        "save_folder": str(recipe.checkpoints) if section.save_interval is not None else None,
        "save_interval": section.save_interval or "1ep",
        "save_num_checkpoints_to_keep": section.keep_checkpoints or -1,
        "save_overwrite": not section.autoresume,
        "load_path": section.load_path,
        "load_weights_only": section.load_weights_only,
        "autoresume": section.autoresume,
    }


def _all_batches(evaluation: DataSpec) -> int:
    """Composer's value for a whole evaluation: -1, but a number for a stream, which has no length."""
    loader: Any = evaluation.dataloader
    return 10**9 if isinstance(loader.dataset, IterableDataset) else -1


def _show_choice(section: Train, microbatch: int | str) -> None:
    if section.device_train_microbatch_size == "auto":
        device = "a CUDA device" if torch.cuda.is_available() else "a CPU"
        show(f"device_train_microbatch_size: {microbatch} (auto, on {device})")
