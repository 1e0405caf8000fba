"""A recipe played: model, data, techniques and Trainer put together, trained, evaluated, recorded."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from composer import Trainer
from composer.core import Algorithm, Callback, DataSpec
from composer.models import ComposerModel
from composer.utils import dist
from torch.utils.data import IterableDataset

from cadenza.recipe import build, checkpoints, images, record, text
from cadenza.recipe.parallelism import parallelism
from cadenza.recipe.progress import Progress
from cadenza.recipe.safety import Resuming, StopsAtNaN
from cadenza.recipe.schema import ImageRecipe, Run
from cadenza.surgery import Report, Surgery


def task(recipe: Run) -> Any:
    """The module that knows models, data and results of a recipe of this kind."""
    return images if isinstance(recipe, ImageRecipe) else text


def model_and_tokenizer(recipe: Run) -> tuple[Any, Any]:
    """The stock model, as it is before any technique, and the tokenizer; None for images."""
    dist.initialize_dist("gpu" if torch.cuda.is_available() else "cpu")
    return task(recipe).model_and_tokenizer(recipe)


def dataspecs(
    recipe: Run, tokenizer: Any = None, algorithms: Sequence[Algorithm] = ()
) -> tuple[DataSpec, DataSpec]:
    """The training and the evaluation data of this rank; an algorithm may want packed training rows."""
    return task(recipe).dataspecs(recipe, tokenizer, algorithms)


def rehearse(recipe: Run) -> tuple[list[Report], dict[str, int]]:
    """Operate on the model without training: the reports, and parameter counts before and after."""
    settings = trainer_settings(recipe)
    model, tokenizer = model_and_tokenizer(recipe)
    dataspecs(recipe, tokenizer, settings["algorithms"])
    before = parameter_count(model)
    reports = [a.operate(model) for a in settings["algorithms"] if isinstance(a, Surgery)]
    return reports, {"stock": before, "after_surgery": parameter_count(model)}


def play(recipe: Run) -> Path | None:
    """Train and evaluate; returns the path of the record on the first rank, None on the others."""
    settings = trainer_settings(recipe)
    model, tokenizer = model_and_tokenizer(recipe)
    stock = parameter_count(model)
    train, evaluation = dataspecs(recipe, tokenizer, settings["algorithms"])
    _check_checkpoint(recipe, settings["algorithms"])
    trainer = build_trainer(recipe, settings, model, train, evaluation)
    _say_surgeries(trainer)
    task(recipe).check(trainer.state.model)
    _train(recipe, trainer)
    results = task(recipe).results(recipe, trainer, evaluation)
    counts = {"stock": stock, "after_surgery": parameter_count(trainer.state.model)}
    trainer.close()
    if dist.get_global_rank() != 0:
        return None
    _say(task(recipe).said(results))
    task(recipe).keep(recipe, model, tokenizer, _folder(recipe))
    return record.write(_folder(recipe), {**_facts(recipe, trainer), "parameters": counts, **results})


def _train(recipe: Run, trainer: Trainer) -> None:
    """Train to the end, and evaluate; a finished run that is played again is only evaluated."""
    now, end = trainer.state.timestamp, trainer.state.max_duration
    if end is not None and now >= end:
        _say(f"nothing left to train: batch {now.batch.value} is the end ({end})")
        return trainer.eval()
    with checkpoints.saving_in(_folder(recipe) / "checkpoints"):
        trainer.fit()


def _check_checkpoint(recipe: Run, algorithms: Sequence[Algorithm]) -> None:
    """Look at what will be loaded before anything is: what is wrong with it is said in a line."""
    section = recipe.train
    path = section.load_path
    if section.autoresume:
        with dist.run_local_rank_zero_first():
            path = checkpoints.latest(_folder(recipe) / "checkpoints") or path
    if path is None:
        return
    if not section.trust_load_path:
        checkpoints.refuse_foreign(path, _folder(recipe))
    if "://" not in str(path):
        checkpoints.refuse_other_data(path, text.packs(algorithms), section.load_weights_only)


def trainer_settings(recipe: Run) -> dict[str, Any]:
    """The Trainer's arguments that need neither model nor data: what is wrong with them is said first."""
    section, cuda = recipe.train, torch.cuda.is_available()
    batch = build.per_device(section.global_batch_size, dist.get_world_size(), "train.global_batch_size")
    precision = build.precision(section.precision, cuda)
    microbatch = build.microbatch_size(section.device_train_microbatch_size, batch, cuda)
    _say_choices(section, precision, microbatch)
    return {
        "run_name": recipe.name,
        "seed": recipe.seed,
        "algorithms": build.algorithms(recipe.algorithms),
        "schedulers": build.scheduler(recipe.scheduler),
        "loggers": build.loggers(recipe.loggers),
        "callbacks": _callbacks(recipe),
        "precision": precision,
        "device_train_microbatch_size": microbatch,
        "max_duration": section.max_duration,
        "eval_interval": section.eval_interval,
        "deterministic_mode": section.deterministic,
        "parallelism_config": parallelism(section.parallelism_config, cuda),
        **_checkpoints(recipe),
    }


def _callbacks(recipe: Run) -> list[Callback]:
    always = [Resuming(recipe.seed), StopsAtNaN(_folder(recipe))]
    return [*always, Progress()] if recipe.train.progress_bar else always


def _checkpoints(recipe: Run) -> dict[str, Any]:
    section = recipe.train
    saves = section.save_interval is not None
    return {
        "save_folder": str(_folder(recipe) / "checkpoints") if saves else None,
        "save_interval": section.save_interval or "1ep",
        "save_overwrite": not section.autoresume,
        "load_path": section.load_path,
        "load_weights_only": section.load_weights_only,
        "autoresume": section.autoresume,
    }


def build_trainer(
    recipe: Run, settings: dict[str, Any], model: ComposerModel, train: DataSpec, evaluation: DataSpec
) -> Trainer:
    """Composer's Trainer; its construction plays the surgeries."""
    return Trainer(
        model=model,
        train_dataloader=train,
        eval_dataloader=evaluation,
        eval_subset_num_batches=_all_batches(evaluation),
        optimizers=build.optimizer(recipe.optimizer, model),
        progress_bar=False,
        accumulate_train_batch_on_tokens=task(recipe).by_tokens,
        **settings,
    )


def _all_batches(evaluation: DataSpec) -> int:
    """Composer's word for a whole evaluation; of a stream, which has no length, it wants a number."""
    loader: Any = evaluation.dataloader
    return 10**9 if isinstance(loader.dataset, IterableDataset) else -1


def parameter_count(model: torch.nn.Module) -> int:
    """Parameters, each tied one once."""
    return sum(parameter.numel() for parameter in model.parameters())


def _facts(recipe: Run, trainer: Trainer) -> dict[str, Any]:
    reports = _reports(trainer)
    return {
        "recipe": asdict(recipe),
        "versions": record.versions(),
        "device": {"kind": str(trainer.state.device.name), "world_size": dist.get_world_size()},
        "precision": trainer.state.precision.value,
        "surgeries": {r.surgery: [asdict(change) for change in r.changes] for r in reports},
    }


def _reports(trainer: Trainer) -> list[Report]:
    """Of the surgeries that found something to change."""
    surgeries = (a for a in trainer.state.algorithms if isinstance(a, Surgery))
    return [surgery.report for surgery in surgeries if surgery.report is not None]


def _folder(recipe: Run) -> Path:
    return Path(recipe.train.run_folder) / recipe.name


def _say(line: str) -> None:
    if dist.get_global_rank() == 0:
        print(line, flush=True)


def _say_choices(section: Any, precision: str, microbatch: int | str) -> None:
    device = "a CUDA device" if torch.cuda.is_available() else "a CPU"
    if section.precision == "auto":
        _say(f"precision: {precision} (auto, on {device})")
    if section.device_train_microbatch_size == "auto":
        _say(f"device_train_microbatch_size: {microbatch} (auto, on {device})")


def _say_surgeries(trainer: Trainer) -> None:
    for report in _reports(trainer):
        _say(str(report).splitlines()[0])
    _say(f"parameters: {parameter_count(trainer.state.model):,}")
