"""The figure of the study: loss by position, and recall by length."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from cadenza.studies.long_context import results as found
from cadenza.studies.long_context.results import Results
from cadenza.studies.long_context.settings import SHORT

COLORS = 10  # of matplotlib's cycle; further rows are dashed


def draw(path: Path, results: Results, lengths: Sequence[int], window: int) -> None:
    """Draw both parts to the file at `path`."""
    from matplotlib.figure import Figure  # without pyplot, which would look for a screen

    figure = Figure(figsize=(13, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for index, name in enumerate(results.rows):
        style = {"color": "black", "linestyle": ":"} if name == SHORT else _style(index)
        _losses(left, results, name, lengths[-1], style)
        _recall(right, results, name, lengths, style)
    left.set(xlabel="tokens from the document's begin", ylabel="loss, nats")
    right.set(xlabel="tokens of the document", ylabel="share of known values", ylim=(0, 1))
    right.set_xscale("log", base=2)
    for axes in (left, right):
        axes.axvline(window, color="grey", linewidth=0.8)
        axes.grid(alpha=0.3)
    right.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def _style(index: int) -> dict[str, str]:
    return {"color": f"C{index % COLORS}", "linestyle": "-" if index < COLORS else "--"}


def _losses(axes: Any, results: Results, name: str, length: int, style: dict[str, str]) -> None:
    curves = [cell["losses"] for (row, _), cell in results.cells.items() if row == name]
    parts = len(curves[0])
    places = [length * (index + 0.5) / parts for index in range(parts)]
    # The first part, of little context, is so much higher that nothing else could be read.
    axes.plot(places[1:], [fmean(each) for each in zip(*curves, strict=True)][1:], label=name, **style)


def _recall(axes: Any, results: Results, name: str, lengths: Sequence[int], style: dict[str, str]) -> None:
    means = [fmean(results.values(name, found.recall(length)).values()) for length in lengths]
    axes.plot(lengths, means, marker="o", label=name, **style)
