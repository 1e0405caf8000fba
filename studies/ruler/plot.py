"""The plots: points against length with a line for each model, and a heat map of each model."""

import math
from pathlib import Path
from typing import Any

from cadenza.studies import report
from cadenza.studies.ruler.scores import Scores


def draw(folder: Path, scores: Scores) -> None:
    """Write ruler.png and ruler_tasks.png."""
    _lines(folder / "ruler.png", scores)
    _heat_maps(folder / "ruler_tasks.png", scores)


def _lines(path: Path, scores: Scores) -> None:
    axes = report.new_axes()
    for model in scores.models:
        points = [(length, mean) for length in scores.lengths if (mean := scores.at(model, length))]
        halves = [0.0 if math.isnan(mean.low) else mean.mean - mean.low for _, mean in points]
        lengths, means = [length for length, _ in points], [mean.mean for _, mean in points]
        axes.errorbar(lengths, means, yerr=halves, marker="o", capsize=3, label=model)
    axes.set_xscale("log", base=2)
    axes.set_xticks(scores.lengths, [str(length) for length in scores.lengths])
    axes.set(xlabel="tokens", ylabel="mean over tasks, points", ylim=(0, 100))
    report.save(axes, path)


def _heat_maps(path: Path, scores: Scores) -> None:
    import matplotlib.pyplot as plt

    names = list(scores.models)
    size = (2.2 + 0.7 * len(scores.lengths)) * len(names), 1.5 + 0.35 * len(scores.tasks)
    figure, axes = plt.subplots(1, len(names), figsize=size, layout="constrained", squeeze=False, sharey=True)
    images = [_heat_map(each, scores, model) for each, model in zip(axes[0], names, strict=True)]
    figure.colorbar(images[0], ax=axes, label="points")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _heat_map(axes: Any, scores: Scores, model: str) -> Any:
    table = [
        [_or_nan(scores.of_task(model, task, length)) for length in scores.lengths] for task in scores.tasks
    ]
    image = axes.imshow(table, vmin=0, vmax=100, aspect="auto", cmap="viridis")
    axes.set_xticks(range(len(scores.lengths)), [str(length) for length in scores.lengths])
    axes.set_yticks(range(len(scores.tasks)), scores.tasks)
    axes.set(title=model, xlabel="tokens")
    return image


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
