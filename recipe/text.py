"""A language model's recipe: its model and tokenizer, its data, and what came of it."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from composer import Trainer
from composer.core import Algorithm, DataSpec
from composer.models import HuggingFaceModel
from composer.utils import dist, reproducibility

from cadenza.algorithms import check_rope
from cadenza.data import (
    build_causal_dataspec,
    build_dataspec,
    build_tokenizer,
    train_texts,
    unigram_entropy,
)
from cadenza.models import causal_lm, has_adapters, masked_lm
from cadenza.recipe import build
from cadenza.recipe.integers import keep_integers
from cadenza.recipe.parallelism import mark_layers
from cadenza.recipe.progress import real_tokens_per_second
from cadenza.recipe.schema import Recipe

by_tokens = True  # micro-batches weigh by labels, not by samples


def model_and_tokenizer(recipe: Recipe) -> tuple[HuggingFaceModel, Any]:
    """The stock model, as it is before any technique, and the tokenizer."""
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


def dataspecs(
    recipe: Recipe, tokenizer: Any, algorithms: Sequence[Algorithm] = ()
) -> tuple[DataSpec, DataSpec]:
    """The training and the evaluation data of this rank; an algorithm may want packed training rows."""
    packed = packs(algorithms)
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


def packs(algorithms: Sequence[Algorithm]) -> bool:
    """Whether one of them wants packed training rows."""
    return any(getattr(algorithm, "packs_rows", False) for algorithm in algorithms)


check = check_rope  # of the model, right before it trains


def results(recipe: Recipe, trainer: Trainer, evaluation: DataSpec) -> dict[str, Any]:
    """What is recorded of a finished run."""
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


def keep(recipe: Recipe, model: Any, tokenizer: Any, folder: Path) -> None:
    """Leave beside the record what a checkpoint doesn't hold."""
    if has_adapters(model):
        model.model.save_pretrained(str(folder / "adapter"))
    keep_integers(recipe, model, folder)
    tokenizer.save_pretrained(folder / "tokenizer")  # a trained one may differ on another machine


def said(results: dict[str, Any]) -> str:
    """The results for people."""
    train, evaluation = results["train"], results["eval"]
    gain = evaluation["unigram_entropy"] - evaluation["loss"]
    masked = "masked_accuracy" in evaluation
    loss = "masked-token cross-entropy" if masked else "next-token cross-entropy"
    return (
        f"train: {train['batches']} batches in {train['seconds']:.0f} s, "
        f"{train['real_tokens_per_second']:,.0f} real tokens/s\n"
        f"eval: {loss} {evaluation['loss']:.3f} nats, {gain:.3f} below the unigram "
        f"entropy of the same tokens ({evaluation['unigram_entropy']:.3f}); "
        + (f"masked accuracy {evaluation['masked_accuracy']:.1%}" if masked else _perplexity(evaluation))
    )


def _perplexity(evaluation: dict[str, Any]) -> str:
    return f"perplexity {math.exp(evaluation['loss']):.1f}, accuracy {evaluation['accuracy']:.1%}"
