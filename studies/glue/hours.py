"""What the runs took, in hours."""

from collections.abc import Iterable
from dataclasses import dataclass

from cadenza.studies.glue.recipes import Cell
from cadenza.studies.report import Row

TOTAL = "all models"


@dataclass(frozen=True)
class Hours:
    """Of `runs` runs: their training; all of their processes, with loading and evaluation; the wall clock."""

    runs: int
    training: float
    processes: float
    wall: float


def hours(rows: dict[Cell, Row]) -> dict[str, Hours]:
    """By model, and of all of them if there are several.

    The wall clock counts the time in which at least one run was going. Of a run that was stopped and resumed,
    training counts as a whole, the rest since the last start.
    """
    models = list(dict.fromkeys(cell.model for cell in rows))
    found = {model: _of(row for cell, row in rows.items() if cell.model == model) for model in models}
    return found | ({TOTAL: _of(rows.values())} if len(models) > 1 else {})


def _of(rows: Iterable[Row]) -> Hours:
    rows = list(rows)
    spans = sorted((float(row["began"]), float(row["ended"])) for row in rows)
    training = sum(float(row["training_seconds"]) for row in rows)
    return Hours(
        len(rows), training / 3600, sum(end - begin for begin, end in spans) / 3600, _covered(spans) / 3600
    )


def _covered(spans: list[tuple[float, float]]) -> float:
    """The length of the union of `spans`, which are sorted."""
    total, until = 0.0, float("-inf")
    for begin, end in spans:
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total
