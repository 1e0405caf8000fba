"""The tables of the study, in Markdown."""

from collections.abc import Sequence
from typing import Any

from cadenza.studies import report
from cadenza.studies.pretraining_pareto import published
from cadenza.studies.pretraining_pareto.points import Point, fronts, own_fronts
from cadenza.studies.pretraining_pareto.runs import Run
from cadenza.studies.pretraining_pareto.targets import COSTS, Line

SPENT = ("hours", "tokens", "FLOPs")


def runs_table(lines: Sequence[Line], points: Sequence[Point]) -> str:
    """A row for each run: its hardware, its attention, what it spent, and its last loss and score."""
    head = ["run", "group", "devices", "attention", "batches", *SPENT, "last loss", "last score"]
    body = [_run(run, line, points) for line in lines for run in line.runs]
    return report.table(head, body)


def _run(run: Run, line: Line, points: Sequence[Point]) -> list[str]:
    last = {point.measure: point.value for point in points if point.run == run.name}  # ordered by batch
    group = "" if line.name == run.name else line.name
    ends = [number(last.get(measure), "loss") for measure in ("loss", "score")]
    return [
        run.name,
        group,
        run.devices,
        attention(run),
        f"{run.last:,}",
        *_spent(run.spent[run.last]),
        *ends,
    ]


def attention(run: Run) -> str:
    """How a run computed attention: by the technique `flash_attention`, else by the stock implementation."""
    technique = run.recipe.get("algorithms", {}).get("flash_attention", False)
    if technique is False:
        return str(run.recipe["model"].get("attention", ""))
    kernel = (technique or {}).get("kernel")
    return f"flash_attention, {kernel}" if kernel else "flash_attention"


def points_table(points: list[Point], all_points: bool = False) -> str:
    """The points of one measure on the front, over all runs, of any axis; or all points, with both marks."""
    over_all, own = fronts(points), own_fronts(points)
    measure = points[0].measure
    head = ["run", "batch", *SPENT, measure, "on the front of", *(["on its run's of"] if all_points else [])]
    marks = [(point, _axes(over_all, point), _axes(own, point)) for point in points]
    body = [
        [
            p.run,
            f"{p.batch:,}",
            *_spent(p.spent),
            number(p.value, "loss"),
            mark,
            *([its] if all_points else []),
        ]
        for p, mark, its in marks
        if mark or all_points
    ]
    return report.table(head, body)


def targets_table(rows: Sequence[dict[str, Any]], priced: bool) -> str:
    """What each line spent until each target, and the ratios to the first line."""
    costs = COSTS if priced else COSTS[:3]
    names = dict(zip(COSTS, (*SPENT, "dollars"), strict=True))
    ratios = [f"{names[cost]}, first = 1" for cost in costs[:3]]
    head = ["target", "run or group", "reached", *(names[cost] for cost in costs), *ratios]
    return report.table(head, [_target(row, costs) for row in rows])


def _target(row: dict[str, Any], costs: Sequence[str]) -> list[str]:
    shown = f"{row['measure']} {row['target']:g}", row["line"]
    if not row["reached"]:
        return [*shown, "not reached", *[""] * (len(costs) + 3)]
    count = "yes" if row["runs"] == 1 else f"{row['reached']} of {row['runs']}"
    ratios = (_spread(row["ratio"][cost], "ratio") for cost in costs[:3])
    return [*shown, count, *(_spread(row[cost], cost, row["most"]) for cost in costs), *ratios]


def _spread(found: dict[str, float | None] | None, kind: str, most: bool = False) -> str:
    """Such as `1.2 (1.1 to 1.3)`; without a mean, where not all runs are there, the range alone."""
    if found is None:
        return "not known" if kind != "ratio" else ""
    mean, low, high = (number(found[key], kind) for key in ("mean", "low", "high"))
    ends = f"{low} to {high}" if low != high else low
    text = ends if not mean or low == high else f"{mean} ({ends})"
    return f"at most {text}" if most else text


def number(value: float | None, kind: str) -> str:
    """A number as its kind is written: hours in three digits or more, tokens whole; empty if it's None."""
    if value is None:
        return ""
    styles = {"tokens": ",.0f", "loss": ".4f", "ratio": ".2f"}
    if kind in ("hours", "dollars") and value >= 1:
        return f"{value:,.2f}"
    return f"{value:{styles.get(kind, '.3g')}}"


def published_table() -> str:
    """The published curves, with their sources."""
    body = [
        [curve.name, ", ".join(f"{hours:g} h: {glue:g}" for hours, glue in curve.points), curve.source]
        for curve in published.CURVES
    ]
    return report.table(["model", f"GLUE, by hours on {published.HARDWARE}", "source"], body)


def _spent(spent: Any) -> list[str]:
    return [number(getattr(spent, key), key) for key in ("hours", "tokens", "flops")]


def _axes(found: dict[str, list[Point]], point: Point) -> str:
    return ", ".join("FLOPs" if axis == "flops" else axis for axis, kept in found.items() if point in kept)
