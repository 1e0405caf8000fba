"""The plot: a row of panels for each measure, a panel for each axis, and the published curves apart."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cadenza.studies.pretraining_pareto import published
from cadenza.studies.pretraining_pareto.points import AXES, UNITS, Point, front
from cadenza.studies.pretraining_pareto.targets import Line

GRAYS = {"MosaicBERT-Base": "0.2", "BERT-Base": "0.6"}


def draw(lines: Sequence[Line], points: Sequence[Point], target: Path, with_published: bool) -> Path:
    """Draw the points of `lines` to the file `target`; the published curves have a row of their own."""
    from matplotlib.figure import Figure  # without pyplot, which would look for a screen

    measures = list(dict.fromkeys(point.measure for point in points))
    axes_of = [axis for axis in AXES if any(point.cost(axis) is not None for point in points)]
    rows = len(measures) + with_published
    figure = Figure(figsize=(5.5 * len(axes_of), 4.5 * rows), layout="constrained")
    panels = figure.subplots(rows, len(axes_of), squeeze=False)
    for row, measure in zip(panels, measures, strict=False):
        for axes, axis in zip(row, axes_of, strict=True):
            _panel(axes, lines, [point for point in points if point.measure == measure], axis)
        row[0].set_ylabel(UNITS[measure])
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    if with_published:
        _published(panels[-1][0])
        for axes in panels[-1][1:]:
            axes.set_axis_off()
    figure.savefig(target, dpi=120)
    return target


def _panel(axes: Any, lines: Sequence[Line], points: list[Point], axis: str) -> None:
    for number, line in enumerate(lines):
        for run in line.runs:
            label = _label(line) if run is line.runs[0] else None
            _curve(axes, [p for p in points if p.run == run.name], axis, f"C{number}", label)
    best = front(points, axis)
    style = {"where": "post", "color": "black", "alpha": 0.3, "linewidth": 5, "zorder": 0}
    axes.step([p.cost(axis) for p in best], [p.value for p in best], label="front", **style)
    axes.set_xlabel(AXES[axis])
    axes.grid(alpha=0.3)


def _curve(axes: Any, points: list[Point], axis: str, color: str, label: str | None) -> None:
    """A run: full dots are on its own front, hollow ones aren't; one without points is in the legend, too."""
    ordered = sorted((p for p in points if p.cost(axis) is not None), key=lambda p: p.batch)
    axes.plot(*_xy(ordered, axis), color=color, label=label)
    best = front(ordered, axis)
    axes.plot(*_xy(best, axis), "o", color=color)
    hollow = [point for point in ordered if point not in best]
    axes.plot(*_xy(hollow, axis), "o", color=color, markerfacecolor="none")


def _xy(points: list[Point], axis: str) -> tuple[list[Any], list[float]]:
    return [point.cost(axis) for point in points], [point.value for point in points]


def _label(line: Line) -> str:
    devices = dict.fromkeys(run.devices or "devices not known" for run in line.runs)
    seeds = f", {len(line.runs)} runs" if len(line.runs) > 1 else ""
    return as_text(f"{line.name}{seeds} ({', '.join(devices)})")


def as_text(name: str) -> str:
    """`name` as matplotlib shows it: `$` would begin a formula, and `_` leave a line out of the legend."""
    return (" " if name.startswith("_") else "") + name.replace("$", r"\$")


def _published(axes: Any) -> None:
    for curve in published.CURVES:
        color = GRAYS[curve.name.split(",")[0]]
        style = "x" if len(curve.points) == 1 else "--o"
        axes.plot(*zip(*curve.points, strict=True), style, color=color, label=curve.name)
    axes.set(xlabel=f"hours on {published.HARDWARE}", ylabel="GLUE, dev", title="published, other hardware")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", title=f"published, {published.HARDWARE}")
