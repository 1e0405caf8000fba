"""The plot of a track: seconds by record with intervals, and loss against seconds of each record."""

import csv
from pathlib import Path
from typing import Any

from tracks import Track

from cadenza.studies.report import Row


def draw(path: Path, track: Track, rows: list[Row]) -> None:
    """Draw both panels to the file `path`."""
    from matplotlib.figure import Figure  # without pyplot, which would look for a screen

    figure = Figure(figsize=(12, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    _times(left, rows)
    _losses(right, track, rows)
    figure.suptitle(f"Speedrun of masked-LM pretraining, track {track.name}: {rows[-1]['device']}")
    figure.savefig(path, dpi=120)


def _times(axes: Any, rows: list[Row]) -> None:
    """A step for each record, with the interval of its mean."""
    seconds, at = [row["seconds"] for row in rows], range(len(rows))
    down = [max(row["seconds"] - row["seconds_low"], 0) for row in rows]
    up = [row["seconds_high"] - row["seconds"] for row in rows]
    axes.step([*at, len(rows) - 0.5], [*seconds, seconds[-1]], where="post", color="C0", alpha=0.4)
    axes.errorbar(at, seconds, yerr=[down, up], fmt="o", color="C0", capsize=3)
    axes.set_yscale("log")
    _plain(axes.yaxis)
    axes.set_xticks(at, [row["record"] for row in rows], rotation=30, ha="right")
    axes.set_ylabel("seconds of training to the target loss")
    axes.grid(alpha=0.3, which="both")


def _plain(axis: Any) -> None:
    """Write seconds as 20 and 30, not as powers of ten, and few enough not to touch."""
    from matplotlib.ticker import LogLocator

    axis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("{x:g}")


def _losses(axes: Any, track: Track, rows: list[Row]) -> None:
    """A line for each seed of each record."""
    for number, row in enumerate(rows):
        curves = _curves(track.records / row["record"] / "curve.csv")
        for index, points in enumerate(curves.values()):
            options = {"color": f"C{number % 10}", "linewidth": 1, "marker": "."}
            axes.plot(*zip(*points, strict=True), label=None if index else row["record"], **options)
    if track.target is not None:
        axes.axhline(track.target, color="black", linewidth=0.8, linestyle="--")
    axes.set_xscale("log")
    _plain(axes.xaxis)
    axes.set(xlabel="seconds of training", ylabel="evaluation loss, nats")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _curves(path: Path) -> dict[int, list[tuple[float, float]]]:
    """Seed -> seconds and losses of its evaluations."""
    found: dict[int, list[tuple[float, float]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(int(row["seed"]), []).append((float(row["seconds"]), float(row["loss"])))
    return found
