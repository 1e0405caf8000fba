"""Points of loss or score against what was spent, and the front: the points that no other one beats."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

AXES = {"hours": "hours of training", "tokens": "tokens", "flops": "floating-point operations"}
UNITS = {"loss": "evaluation loss, cross-entropy in nats", "score": "score"}


class Spent(NamedTuple):
    """What training took up to a batch, over all devices, without evaluation; None: not known."""

    hours: float
    tokens: int | None
    flops: float | None


@dataclass(frozen=True)
class Point:
    """An evaluation of a run (`measure` is loss), or one of its checkpoints (`measure` is score)."""

    run: str
    measure: str
    batch: int
    spent: Spent
    value: float

    @property
    def quality(self) -> float:
        """The value, with the sign by which higher is better."""
        return -self.value if self.measure == "loss" else self.value

    def cost(self, axis: str) -> float | None:
        """What was spent, one of `AXES`."""
        return getattr(self.spent, axis)


def front(points: Iterable[Point], axis: str) -> list[Point]:
    """The points of one measure that no other is better than in cost or quality, and no worse in both.

    Ordered by cost; points of an unknown cost are left out. Equal points are all kept.
    """
    costs = [(cost, -point.quality, point) for point in points if (cost := point.cost(axis)) is not None]
    kept: list[tuple[float, float, Point]] = []
    for each in sorted(costs, key=lambda found: found[:2]):
        if not kept or each[1] < kept[-1][1] or each[:2] == kept[-1][:2]:
            kept.append(each)
    return [point for _, _, point in kept]


def fronts(points: list[Point]) -> dict[str, list[Point]]:
    """The front over all points of one measure, for each axis."""
    return {axis: front(points, axis) for axis in AXES}


def own_fronts(points: list[Point]) -> dict[str, list[Point]]:
    """The points of one measure that no other point of the same run beats, for each axis."""
    of_run = [[p for p in points if p.run == run] for run in dict.fromkeys(p.run for p in points)]
    return {axis: [p for same in of_run for p in front(same, axis)] for axis in AXES}
