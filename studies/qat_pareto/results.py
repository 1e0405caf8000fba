"""What was measured, by kind and seed: means, differences and costs."""

from cadenza.studies.intervals import Interval, interval
from cadenza.studies.qat_pareto.points import Kind, Point
from cadenza.studies.qat_pareto.settings import PLAIN
from cadenza.studies.report import Row

MEASURES = ("accuracy", "gap", "train_accuracy", "loss", "seconds")


class Results:
    """The rows of the study's file, whose values may be texts."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows: dict[Kind, dict[int, Row]] = {}
        for row in rows:
            point = self.point(row)
            self.rows.setdefault(point.kind, {})[point.seed] = row

    @staticmethod
    def point(row: Row) -> Point:
        """The point of a row."""
        width = None if row["width"] in ("", None) else float(row["width"])
        trained = row["trained"] in (True, "True")
        return Point(Kind(row["model_type"], width, row["bits"], row["variant"], trained), int(row["seed"]))

    @property
    def kinds(self) -> list[Kind]:
        """All kinds, by network and cost."""
        return sorted(self.rows, key=self.order)

    @property
    def trained(self) -> list[Kind]:
        """The kinds that were trained with their bits, without the variants."""
        return [kind for kind in self.kinds if kind.trained and kind == kind.base]

    def order(self, kind: Kind) -> tuple:
        """The place of a kind among the others: by network and cost."""
        costs = -self.cost(kind, "linear"), -self.cost(kind, "quadratic")
        return kind.model_type, kind.width or 0, not kind.trained, *costs, kind.variant

    def cost(self, kind: Kind, name: str) -> float:
        """Such as `linear`; the same for all seeds."""
        return float(next(iter(self.rows[kind].values()))[name])

    def full(self, kind: Kind) -> Kind:
        """The same network in full precision: of the same variant if it was measured, else of none."""
        own = kind._replace(bits=PLAIN)
        return own if own in self.rows else kind.full

    def by_seed(self, kind: Kind, measure: str) -> dict[int, float]:
        """`accuracy`, `loss` or another measure by seed; empty if there is none."""
        found = self.rows.get(kind, {})
        return {seed: value for seed, row in found.items() if (value := _value(row, measure)) is not None}

    def mean(self, kind: Kind, measure: str = "accuracy") -> Interval | None:
        """The mean over seeds; None if it wasn't measured."""
        values = self.by_seed(kind, measure)
        return interval(list(values.values())) if values else None

    def difference(self, first: Kind, second: Kind, measure: str = "accuracy") -> Interval | None:
        """First minus second, paired by seed; None if they share no seed."""
        return self.mean_difference([(first, second)], measure)

    def mean_difference(self, pairs: list[tuple[Kind, Kind]], measure: str) -> Interval | None:
        """The mean over pairs of first minus second, by the seeds that all of them have."""
        measured = [(self.by_seed(a, measure), self.by_seed(b, measure)) for a, b in pairs]
        every = [first.keys() & second.keys() for first, second in measured]
        seeds = sorted(set.intersection(*map(set, every))) if every else []
        values = [sum(a[seed] - b[seed] for a, b in measured) / len(pairs) for seed in seeds]
        return interval(values) if values else None


def _value(row: Row, measure: str) -> float | None:
    if measure == "gap":
        train, own = _value(row, "train_accuracy"), _value(row, "accuracy")
        return None if train is None or own is None else train - own
    return None if row[measure] in ("", None) else float(row[measure])
