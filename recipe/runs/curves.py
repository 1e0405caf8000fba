"""The curves of runs: `read` takes them from a run's folder, `draw` draws those of one run or several."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cadenza.recipe.record import FILE as RECORD
from cadenza.recipe.runs import kept_recipe, rows

PLOT = "metrics.png"
AXES = {
    "batch": "batches",
    "samples": "samples",
    "tokens": "tokens",
    "seconds": "seconds of training",
    "flops": "floating-point operations",
}
RATES = {"tokens_per_second": "tokens per second", "samples_per_second": "samples per second"}


@dataclass
class Curves:
    """The rows of a run.

    Args:
        training, evaluation: a row for each batch, and for each evaluation; see `metrics.jsonl`.
        unigram_entropy: of the evaluation text, in nats; None of images, and of a run that hasn't ended.
    """

    name: str
    model: str
    training: list[dict[str, Any]]
    evaluation: list[dict[str, Any]]
    unigram_entropy: float | None = None


def read(folder: Path) -> Curves:
    """The curves of the run in `folder`, which may be one that is still training.

    Raises:
        FileNotFoundError: `folder` has no metrics.jsonl.
    """
    if not (folder / rows.FILE).is_file():
        raise FileNotFoundError(f"{folder}: there is no {rows.FILE} in it")
    found = rows.read(folder / rows.FILE)
    recipe = kept_recipe.read(folder / kept_recipe.FILE) or {}
    model = recipe.get("model", {})
    return Curves(
        name=str(recipe.get("name", folder.name)),
        model=str(model.get("pretrained") or model.get("model_type", "")),
        training=[row for row in found if "evaluation" not in row],
        evaluation=rows.curve(found),
        unigram_entropy=_entropy(folder / RECORD),
    )


def draw(runs: list[Curves], target: Path, against: str = "batch") -> Path:
    """Draw loss, learning rate and throughput of `runs` to the file `target`.

    Args:
        against: what the horizontal axis counts, one of `AXES`.

    Raises:
        ImportError: matplotlib, an extra, isn't installed.
    """
    from matplotlib.figure import Figure  # without pyplot, which would look for a screen

    figure = Figure(figsize=(8, 9), layout="constrained")
    loss, rate, throughput = figure.subplots(3, 1, sharex=True, height_ratios=(2, 1, 1))
    for index, run in enumerate(runs):
        label, color = (run.name, f"C{index}") if len(runs) > 1 else ("", "C0")
        draw_losses(loss, run, against, f"{label}: ".removeprefix(": "), color)
        _line(rate, run.training, against, "learning_rate", color=color)
        for key in RATES:
            _line(throughput, run.training, against, key, color=color, linewidth=0.8)
    loss.set_ylabel("loss, cross-entropy in nats")
    rate.set_ylabel("learning rate")
    throughput.set_ylabel(_rate_of(runs))
    throughput.set_xlabel(AXES[against])
    figure.suptitle(_title(runs))
    figure.legend(loc="outside lower center", ncols=3)
    figure.savefig(target, dpi=120)
    return target


def draw_losses(axes: Any, run: Curves, against: str, label: str, color: str) -> None:
    """Draw the losses of a run; `label` comes before the names in the legend."""
    options: dict[str, Any] = {"color": color, "linewidth": 0.8, "alpha": 0.5}
    _line(axes, run.training, against, "loss", label=f"{label}training", **options)
    _line(axes, run.evaluation, against, "loss", label=f"{label}evaluation", color=color, marker="o")
    if run.unigram_entropy is not None:
        options = {"color": color, "linestyle": "--", "linewidth": 1}
        axes.axhline(run.unigram_entropy, label=f"{label}unigram entropy of the evaluation text", **options)


def _line(axes: Any, found: list[dict[str, Any]], against: str, key: str, **options: Any) -> None:
    points = [(row[against], row[key]) for row in found if against in row and row.get(key) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), **options)


def _rate_of(runs: list[Curves]) -> str:
    found = {key for run in runs for row in run.training[-1:] for key in RATES if key in row}
    return " or ".join(RATES[key] for key in RATES if key in found) or "throughput"


def _title(runs: list[Curves]) -> str:
    return ", ".join(f"{run.name} ({run.model})" if run.model else run.name for run in runs)


def _entropy(record: Path) -> float | None:
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        return found["eval"].get("unigram_entropy")
    except (OSError, ValueError, KeyError):
        return None
