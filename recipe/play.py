"""A recipe played: model, data, techniques and Trainer put together, trained, evaluated, recorded."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from composer import Trainer
from composer.core import Algorithm, Callback, DataSpec
from composer.models import HuggingFaceModel
from composer.utils import dist, reproducibility
from torch.utils.data import IterableDataset

from cadenza.algorithms import check_rope
from cadenza.data import (
    build_causal_dataspec,
    build_dataspec,
    build_tokenizer,
    train_texts,
    unigram_entropy,
)
from cadenza.models import causal_lm, has_adapters, masked_lm
from cadenza.recipe import build, checkpoints, record
from cadenza.recipe.parallelism import mark_layers, parallelism
from cadenza.recipe.progress import Progress, real_tokens_per_second
from cadenza.recipe.safety import Resuming, StopsAtNaN
from cadenza.recipe.schema import Recipe
from cadenza.surgery import Report, Surgery


def model_and_tokenizer(recipe: Recipe) -> tuple[HuggingFaceModel, Any]:
    """The stock model, as it is before any technique, and the tokenizer."""
    dist.initialize_dist("gpu" if torch.cuda.is_available() else "cpu")
    masked = recipe.model.objective == "masked_lm"
    tokenizer = build_tokenizer(recipe.tokenizer, lambda: train_texts(recipe.data), masked)
    reproducibility.seed_all(recipe.seed)
    section = asdict(recipe.model)
    checkpointing = section.pop("gradient_checkpointing")
    build_model = {"masked_lm": masked_lm, "causal_lm": causal_lm}[section.pop("objective")]
    model = build_model(**section, tokenizer=tokenizer)
    if checkpointing:
        model.model.gradient_checkpointing_enable()
    mark_layers(model)
    return model, tokenizer


def rehearse(recipe: Recipe) -> tuple[list[Report], dict[str, int]]:
    """Operate on the model without training: the reports, and parameter counts before and after."""
    settings = trainer_settings(recipe)
    model, tokenizer = model_and_tokenizer(recipe)
    dataspecs(recipe, tokenizer, settings["algorithms"])
    before = parameter_count(model)
    reports = [a.operate(model) for a in settings["algorithms"] if isinstance(a, Surgery)]
    return reports, {"stock": before, "after_surgery": parameter_count(model)}


def play(recipe: Recipe) -> Path | None:
    """Train and evaluate; returns the path of the record on the first rank, None on the others."""
    settings = trainer_settings(recipe)
    model, tokenizer = model_and_tokenizer(recipe)
    stock = parameter_count(model)
    train, evaluation = dataspecs(recipe, tokenizer, settings["algorithms"])
    _check_checkpoint(recipe, settings["algorithms"])
    trainer = build_trainer(recipe, settings, model, train, evaluation)
    _say_surgeries(trainer)
    check_rope(trainer.state.model)
    _train(recipe, trainer)
    results = _results(recipe, trainer, evaluation)
    counts = {"stock": stock, "after_surgery": parameter_count(trainer.state.model)}
    trainer.close()
    if dist.get_global_rank() != 0:
        return None
    _say_results(results)
    if has_adapters(model):
        model.model.save_pretrained(str(_folder(recipe) / "adapter"))
    tokenizer.save_pretrained(_folder(recipe) / "tokenizer")  # a trained one may differ on another machine
    return record.write(_folder(recipe), {**_facts(recipe, trainer), "parameters": counts, **results})


def _train(recipe: Recipe, trainer: Trainer) -> None:
    """Train to the end, and evaluate; a finished run that is played again is only evaluated."""
    now, end = trainer.state.timestamp, trainer.state.max_duration
    if end is not None and now >= end:
        _say(f"nothing left to train: batch {now.batch.value} is the end ({end})")
        return trainer.eval()
    with checkpoints.saving_in(_folder(recipe) / "checkpoints"):
        trainer.fit()


def _check_checkpoint(recipe: Recipe, algorithms: Sequence[Algorithm]) -> None:
    """Look at what will be loaded before anything is: what is wrong with it is said in a line."""
    section = recipe.train
    path = section.load_path
    if section.autoresume:
        with dist.run_local_rank_zero_first():
            path = checkpoints.latest(_folder(recipe) / "checkpoints") or path
    if path is not None and "://" not in str(path):
        checkpoints.refuse_other_data(path, _packs(algorithms), section.load_weights_only)


def _packs(algorithms: Sequence[Algorithm]) -> bool:
    return any(getattr(algorithm, "packs_rows", False) for algorithm in algorithms)


def dataspecs(
    recipe: Recipe, tokenizer: Any, algorithms: Sequence[Algorithm] = ()
) -> tuple[DataSpec, DataSpec]:
    """The training and the evaluation data of this rank; an algorithm may want packed training rows."""
    packed = _packs(algorithms)
    world = dist.get_world_size()
    train = recipe.train
    batch = build.per_device(train.global_batch_size, world, "train.global_batch_size")
    eval_batch = train.eval_batch_size or train.global_batch_size
    eval_batch = build.per_device(eval_batch, world, "train.eval_batch_size")
    common = {"cfg": recipe.data, "tokenizer": tokenizer, "seed": recipe.seed}
    if recipe.model.objective == "causal_lm":
        return (
            build_causal_dataspec(train=True, batch_size=batch, **common),
            build_causal_dataspec(train=False, batch_size=eval_batch, **common),
        )
    return (
        build_dataspec(train=True, batch_size=batch, packed=packed, **common),
        build_dataspec(train=False, batch_size=eval_batch, **common),
    )


def trainer_settings(recipe: Recipe) -> dict[str, Any]:
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


def _callbacks(recipe: Recipe) -> list[Callback]:
    always = [Resuming(recipe.seed), StopsAtNaN(_folder(recipe))]
    return [*always, Progress()] if recipe.train.progress_bar else always


def _checkpoints(recipe: Recipe) -> dict[str, Any]:
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
    recipe: Recipe, settings: dict[str, Any], model: HuggingFaceModel, train: DataSpec, evaluation: DataSpec
) -> Trainer:
    """Composer's Trainer; its construction plays the surgeries."""
    return Trainer(
        model=model,
        train_dataloader=train,
        eval_dataloader=evaluation,
        eval_subset_num_batches=_all_batches(evaluation),
        optimizers=build.optimizer(recipe.optimizer, model),
        progress_bar=False,
        accumulate_train_batch_on_tokens=True,  # micro-batches weigh by labels, not by samples
        **settings,
    )


def _all_batches(evaluation: DataSpec) -> int:
    """Composer's word for a whole evaluation; of a stream, which has no length, it wants a number."""
    loader: Any = evaluation.dataloader
    return 10**9 if isinstance(loader.dataset, IterableDataset) else -1


def parameter_count(model: torch.nn.Module) -> int:
    """Parameters, each tied one once."""
    return sum(parameter.numel() for parameter in model.parameters())


def _results(recipe: Recipe, trainer: Trainer, evaluation: DataSpec) -> dict[str, Any]:
    accuracy = "masked_accuracy" if recipe.model.objective == "masked_lm" else "accuracy"
    metrics = trainer.state.eval_metrics["eval"]
    timestamp = trainer.state.timestamp
    return {
        "train": {
            "seconds": timestamp.total_wct.total_seconds(),
            "batches": timestamp.batch.value,
            "real_tokens": timestamp.token.value,
            "real_tokens_per_second": real_tokens_per_second(trainer.state),
            "loss": trainer.state.total_loss_dict.get("loss/train/total"),
        },
        "eval": {
            "loss": float(metrics["LanguageCrossEntropy"].compute()),
            accuracy: float(metrics["MaskedAccuracy"].compute()),
            "unigram_entropy": unigram_entropy(evaluation),
        },
    }


def _facts(recipe: Recipe, trainer: Trainer) -> dict[str, Any]:
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


def _folder(recipe: Recipe) -> Path:
    return Path(recipe.train.run_folder) / recipe.name


def _say(text: str) -> None:
    if dist.get_global_rank() == 0:
        print(text, flush=True)


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


def _say_results(results: dict[str, Any]) -> None:
    train, evaluation = results["train"], results["eval"]
    gain = evaluation["unigram_entropy"] - evaluation["loss"]
    masked = "masked_accuracy" in evaluation
    said = "masked-token cross-entropy" if masked else "next-token cross-entropy"
    print(
        f"train: {train['batches']} batches in {train['seconds']:.0f} s, "
        f"{train['real_tokens_per_second']:,.0f} real tokens/s\n"
        f"eval: {said} {evaluation['loss']:.3f} nats, {gain:.3f} below the unigram "
        f"entropy of the same tokens ({evaluation['unigram_entropy']:.3f}); "
        + (f"masked accuracy {evaluation['masked_accuracy']:.1%}" if masked else _perplexity(evaluation)),
        flush=True,
    )


def _perplexity(evaluation: dict[str, Any]) -> str:
    return f"perplexity {math.exp(evaluation['loss']):.1f}, accuracy {evaluation['accuracy']:.1%}"
