"""The scores of a model on a run's own evaluation text and on other texts, before and after training."""

from typing import Any

from composer import Evaluator, Trainer
from composer.core import DataSpec

from cadenza.recipe.runs.metrics import NAMES, finite

OWN = "own"


def of_own(trainer: Trainer) -> dict[str, dict[str, float | None]]:
    """Name -> scores of the last evaluation on the run's own data."""
    return {OWN: _scores(trainer, "eval")}


def of_others(trainer: Trainer, others: dict[str, DataSpec]) -> dict[str, dict[str, float | None]]:
    """Name -> scores; the model is evaluated on each of the `others` now."""
    for name, data in others.items():
        trainer.state.eval_metrics.pop(name, None)  # those from before training
        trainer.eval(Evaluator(label=name, dataloader=data))
    return {name: _scores(trainer, name) for name in others}


def before_and_after(before: dict[str, Any] | None, after: dict[str, Any]) -> dict[str, Any]:
    """The record's `texts`: for each text its scores before training, null if unknown, and after."""
    return {"texts": {name: {"before": (before or {}).get(name), "after": after[name]} for name in after}}


def lines(results: dict[str, Any]) -> list[str]:
    """A line for each text, such as `general: 4.812 -> 4.903`: its loss in nats before and after training."""
    texts = results.get("texts", {})
    return [f"{name}: {_line(each)}" for name, each in texts.items() if name != OWN or each["before"]]


def _line(text: dict[str, Any]) -> str:
    return " -> ".join(_shown(text[time]["loss"]) for time in ("before", "after") if text[time])


def _shown(loss: float | None) -> str:
    return "not finite" if loss is None else f"{loss:.3f}"


def _scores(trainer: Trainer, label: str) -> dict[str, float | None]:
    metrics = trainer.state.eval_metrics[label]
    return {NAMES.get(name, name): finite(metric.compute()) for name, metric in metrics.items()}
