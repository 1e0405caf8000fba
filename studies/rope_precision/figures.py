"""The plots of D: a line for each mode, with the spread over texts."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cadenza.studies import report
from cadenza.studies.rope_precision.summary import READINGS


def draw(
    folder: Path, shifts: Sequence[report.Row], places: Sequence[report.Row], lengths: Sequence[report.Row]
) -> None:
    """Write rope_D_inside.png, rope_D_outside.png, rope_D_keys.png and rope_D_scores.png."""
    for reading in READINGS:
        _plot(folder / f"rope_D_{reading}.png", shifts, "shift", f"D, {reading}")
    _plot(folder / "rope_D_keys.png", _of_first_shift(places), "first", "inside, one key")
    _plot(folder / "rope_D_scores.png", _of_first_shift(lengths), "tokens", "|difference|")


def _of_first_shift(rows: Sequence[report.Row]) -> list[report.Row]:
    return [row for row in rows if row["shift"] == rows[0]["shift"]]


LABELS = {
    "first": "place of the key (of a span the first)",
    "inside, one key": "part of D, inside, of one key",
    "tokens": "queries",
    "|difference|": "difference of the first key's scores",
    "shift": "first position",
}


def _plot(path: Path, rows: Sequence[report.Row], x: str, y: str) -> None:
    axes = report.new_axes()
    for mode in dict.fromkeys(row["mode"] for row in rows):
        own = sorted((row for row in rows if row["mode"] == mode), key=lambda row: row[x])
        spread = [row.get(f"{y}, deviation") or 0 for row in own]
        places, values = ([row[column] for row in own] for column in (x, y))
        axes.errorbar(places, values, yerr=spread, marker="o", capsize=2, label=mode)
    axes.set_xscale("symlog", base=2, linthresh=1)  # 0 is a shift
    axes.set_yscale("symlog", linthresh=_smallest(rows, y))
    axes.set(xlabel=LABELS.get(x, x), ylabel=LABELS.get(y, y), ylim=(0, None))
    report.save(axes, path)


def _smallest(rows: Sequence[report.Row], y: str) -> Any:
    """The power of ten beneath all values but 0."""
    least = min((row[y] for row in rows if row[y] > 0), default=1)
    return 10 ** math.floor(math.log10(least))
