"""What runs spend until they reach a loss or a score, with the spread of seeds, and the ratios."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

from cadenza.studies.crossing import crossing
from cadenza.studies.pretraining_pareto.points import Point, Spent
from cadenza.studies.pretraining_pareto.runs import Run

COSTS = ("hours", "tokens", "flops", "dollars")


class Target(NamedTuple):
    """A loss or a score to reach."""

    measure: str
    value: float


@dataclass(frozen=True)
class Line:
    """A run, or several that are seeds of one recipe."""

    name: str
    runs: list[Run]


class Reached(NamedTuple):
    """What was spent; `most`: the first point is there already, so that it may have been less."""

    spent: Spent
    most: bool


def reached(points: Sequence[Point], value: float) -> Reached | None:
    """What one run spent until it first had `value`, linear between two points; None: not reached."""
    wanted = -value if points and points[0].measure == "loss" else value
    ordered = sorted(points, key=lambda point: point.batch)
    found = crossing([-point.quality for point in ordered], -wanted)
    if found is None:
        return None
    index, share = found
    if index == 0:
        return Reached(ordered[0].spent, True)
    return Reached(_between(ordered[index - 1].spent, ordered[index].spent, share), False)


def _between(low: Spent, high: Spent, share: float) -> Spent:
    def part(axis: str) -> Any:
        ends = getattr(low, axis), getattr(high, axis)
        return None if None in ends else ends[0] + share * (ends[1] - ends[0])

    return Spent(part("hours"), part("tokens"), part("flops"))


def rows(
    lines: Sequence[Line], points: Sequence[Point], targets: Sequence[Target], price: float | None
) -> list[dict[str, Any]]:
    """A row for each target and line, with the ratios to the first line.

    Args:
        points: of all runs and measures.
        price: dollars for an hour of a device.
    """
    found = []
    for target in targets:
        same = [_row(line, points, target, price) for line in lines]
        found += [{**row, "ratio": {cost: _ratio(row, same[0], cost) for cost in COSTS}} for row in same]
    return found


def _row(line: Line, points: Sequence[Point], target: Target, price: float | None) -> dict[str, Any]:
    found = [(run, reached(_of(points, run, target), target.value)) for run in line.runs]
    there = [(run, each) for run, each in found if each is not None]
    spent = {axis: [getattr(each.spent, axis) for _, each in there] for axis in COSTS[:3]}
    spent["dollars"] = [_dollars(run, each.spent.hours, price) for run, each in there]
    counts = {"runs": len(line.runs), "reached": len(there), "most": any(each.most for _, each in there)}
    head = {"line": line.name, "measure": target.measure, "target": target.value, **counts}
    return {**head, **{cost: _spread(values, len(line.runs)) for cost, values in spent.items()}}


def _of(points: Sequence[Point], run: Run, target: Target) -> list[Point]:
    return [point for point in points if (point.run, point.measure) == (run.name, target.measure)]


def _dollars(run: Run, hours: float, price: float | None) -> float | None:
    """The price of the hours on all devices of a run."""
    return None if price is None or run.device is None else hours * run.device["world_size"] * price


def _spread(values: list[Any], runs: int) -> dict[str, float | None] | None:
    """Mean and extremes; no mean unless all runs are there: it would leave out the slowest."""
    if not values or None in values:
        return None
    return {"mean": fmean(values) if len(values) == runs else None, "low": min(values), "high": max(values)}


def _ratio(row: dict[str, Any], first: dict[str, Any], cost: str) -> dict[str, float] | None:
    """The means' ratio and its extremes; None where one isn't known exactly."""
    one, other = row[cost], first[cost]
    if row is first:
        return {"mean": 1.0, "low": 1.0, "high": 1.0} if one and one["mean"] else None
    if row["most"] or first["most"] or not one or not other or None in (one["mean"], other["mean"]):
        return None
    low, high = one["low"] / other["high"], one["high"] / other["low"]
    return {"mean": one["mean"] / other["mean"], "low": low, "high": high}
