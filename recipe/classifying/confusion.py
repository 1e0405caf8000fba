"""The confusion matrix of a classifier: how many examples of each class were taken for which."""

from pathlib import Path
from typing import Any

from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

NUMBERED = 20  # classes up to which each cell shows its count


def matrix(outputs: Tensor, labels: Tensor) -> list[list[int]]:
    """Rows are the classes of the examples, columns the predicted ones; `outputs` is (examples, classes)."""
    return multiclass_confusion_matrix(outputs.argmax(-1), labels, outputs.shape[1]).tolist()


def draw(counts: list[list[int]], names: list[str], title: str, target: Path) -> str:
    """Draw the matrix, coloured by the share of each row; returns the line that says where, or why not."""
    try:
        from matplotlib.figure import Figure  # without pyplot, which would look for a screen
    except ImportError:
        return "no plot: matplotlib isn't installed (pip install 'cadenza[studies]')"
    side = min(4 + 0.5 * len(names), 16)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    shares = [[count / max(sum(row), 1) for count in row] for row in counts]
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the examples of a class", shrink=0.8)
    shown = [name.replace("$", r"\$") for name in names]  # else a formula begins there
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(range(len(names)), shown)
    axes.tick_params(axis="x", labelrotation=45 if max(map(len, names)) > 3 else 0)
    axes.set(xlabel="predicted", ylabel="label", title=title)
    if len(names) <= NUMBERED:
        _write_counts(axes, counts, shares)
    figure.savefig(target, dpi=120)
    return f"confusion matrix: {target}"


def _write_counts(axes: Any, counts: list[list[int]], shares: list[list[float]]) -> None:
    for row, line in enumerate(counts):
        for column, count in enumerate(line):
            color = "white" if shares[row][column] > 0.5 else "black"
            axes.text(column, row, f"{count:,}", ha="center", va="center", color=color)
