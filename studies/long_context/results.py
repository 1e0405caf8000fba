"""The scores of all cells, by row and seed."""

import json
from collections.abc import Callable, Sequence

from cadenza.studies.intervals import Interval, interval
from cadenza.studies.report import Row

Measure = Callable[[Row], float]


class Results:
    """What was measured.

    Args:
        cells: rows of `long_context.csv`, whose values are texts.
    """

    def __init__(self, cells: Sequence[Row]) -> None:
        self.cells = {(row["row"], int(row["seed"])): _read(row) for row in cells}
        self.rows = list(dict.fromkeys(name for name, _ in self.cells))

    def values(self, row: str, measure: Measure) -> dict[int, float]:
        """A measure of a row, by seed."""
        return {seed: measure(cell) for (name, seed), cell in self.cells.items() if name == row}

    def mean(self, row: str, measure: Measure) -> Interval:
        """Its mean over seeds."""
        return interval(list(self.values(row, measure).values()))

    def difference(self, first: str, second: str, measure: Measure) -> Interval:
        """First minus second, paired by seed."""
        ours, theirs = self.values(first, measure), self.values(second, measure)
        return interval([value - theirs[seed] for seed, value in ours.items() if seed in theirs])


def _read(row: Row) -> Row:
    return {**row, **{key: json.loads(row[key]) for key in ("losses", "recall")}}


def loss(first: float, last: float) -> Measure:
    """The mean loss between two places in a document, as shares of its length."""

    def of(cell: Row) -> float:
        parts = cell["losses"][round(first * len(cell["losses"])) : round(last * len(cell["losses"]))]
        return sum(parts) / len(parts)

    return of


def recall(length: int) -> Measure:
    """The share of known values in documents of `length` tokens."""
    return lambda cell: cell["recall"][str(length)]


def measures(lengths: Sequence[int], window: int) -> dict[str, Measure]:
    """Label -> measure: what the page compares.

    Args:
        window: tokens of the short windows.
    """
    share = window / lengths[-1]
    losses = {f"loss, first {window}": loss(0, share), f"loss, beyond {window}": loss(share, 1)}
    return losses | {f"recall at {length}": recall(length) for length in lengths}
