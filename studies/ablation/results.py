"""The cells of the ablation, by row, budget and seed, and what is compared with what."""

import json
from collections.abc import Mapping
from typing import NamedTuple

from cadenza.studies.ablation.recipes import left_out
from cadenza.studies.ablation.settings import Ablation
from cadenza.studies.ablation.speeds import Speeds
from cadenza.studies.crossing import crossing
from cadenza.studies.intervals import Interval, interval
from cadenza.studies.report import Row
from cadenza.studies.running.source import Source

Curve = list[tuple[float, float]]  # batches and loss of each evaluation


class Comparison(NamedTuple):
    """What `first` has and `second` lacks, called `label`; a difference is `first` minus `second`."""

    label: str
    first: str
    second: str

    @property
    def pair(self) -> str:
        """Both rows, for a reader."""
        return f"{self.first} against {self.second}"


class Results:
    """What was measured.

    Args:
        cells: rows of `ablation.csv`, whose values are texts.
        steps: row -> budget -> steps.
        speeds: the times of a step.
        baseline: the row whose time and steps all rows got.
    """

    def __init__(
        self, cells: list[Row], steps: Mapping[str, Mapping[str, int]], speeds: Speeds, baseline: str
    ) -> None:
        self.steps, self.speeds, self.baseline = steps, speeds, baseline
        self.cells = {(row["row"], int(row["steps"]), int(row["seed"])): row for row in cells}

    def by_seed(self, row: str, budget: str, measure: str) -> dict[int, float]:
        """`loss` or `accuracy` of a row by seed; empty if it wasn't measured."""
        found = self._of(row, budget)
        return {seed: float(cell[measure]) for seed, cell in found.items() if cell[measure] not in ("", None)}

    def mean(self, row: str, budget: str, measure: str) -> Interval | None:
        """The mean over seeds; None if it wasn't measured."""
        values = self.by_seed(row, budget, measure)
        return interval(list(values.values())) if values else None

    def difference(self, pair: Comparison, budget: str, measure: str) -> Interval | None:
        """First minus second, paired by seed; None if it wasn't measured."""
        first, second = (self.by_seed(row, budget, measure) for row in (pair.first, pair.second))
        values = [value - second[seed] for seed, value in first.items() if seed in second]
        return interval(values) if values else None

    def curves(self, row: str) -> dict[int, Curve]:
        """The evaluations of the runs of equal time, by seed."""
        found = self._of(row, "time")
        return {seed: [(at, loss) for at, loss in json.loads(cell["curve"])] for seed, cell in found.items()}

    def minutes(self, row: str, steps: float) -> float:
        """The training time of so many steps."""
        return steps * self.speeds.seconds(row) / 60

    def shares(self, row: str, target: str) -> list[float | None]:
        """For each seed the time until `row` has the final loss of `target`, as a share of the baseline's.

        Both are runs of equal time. None stands for a run that doesn't reach it.
        """
        goals = self.by_seed(target, "time", "loss")
        whole = self.minutes(self.baseline, self.steps[self.baseline]["time"])
        found = {seed: reached(curve, goals[seed]) for seed, curve in self.curves(row).items()}
        return [None if at is None else self.minutes(row, at) / whole for at in found.values()]

    def _of(self, row: str, budget: str) -> dict[int, Row]:
        steps = self.steps[row][budget]
        return {
            seed: cell for (name, count, seed), cell in self.cells.items() if (name, count) == (row, steps)
        }


def reached(curve: Curve, loss: float) -> float | None:
    """The batches until the first evaluation at or below `loss`, by linear interpolation; None: never."""
    found = crossing([value for _, value in curve], loss)
    if found is None:
        return None
    index, share = found
    start, end = curve[max(index - 1, 0)][0], curve[index][0]
    return start + (end - start) * share


def comparisons(cfg: Ablation, rows: dict[str, Source]) -> list[Comparison]:
    """Each row with those that it is `against`.

    A row that lacks techniques of the other, and differs in nothing else, tells what these techniques give.
    """
    recipes, found = {name: source.load() for name, source in rows.items()}, []
    for name in rows:
        for other in cfg.row(name).against:
            if left := left_out(recipes[name], recipes[other]):
                found.append(Comparison(" and ".join(left), other, name))
            else:
                found.append(Comparison(name, name, other))
    return found
