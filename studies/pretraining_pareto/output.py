"""What the study leaves: pareto.md, pareto.csv, pareto.json and pareto.png in a folder."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cadenza.studies import report
from cadenza.studies.checks import StudyError
from cadenza.studies.pretraining_pareto import figure, page, published
from cadenza.studies.pretraining_pareto.points import AXES, Point, fronts, own_fronts
from cadenza.studies.pretraining_pareto.targets import Line

NAME = "pareto"


@dataclass(frozen=True)
class Results:
    """What was found.

    Args:
        points: of all runs; those of a measure stand together.
        targets: the rows of `targets.rows`.
        notes: a sentence each.
        priced: whether `targets` have prices.
        published: whether the published curves are shown, apart.
    """

    lines: list[Line]
    points: list[Point]
    targets: list[dict[str, Any]]
    notes: list[str]
    priced: bool
    published: bool

    @property
    def measures(self) -> list[list[Point]]:
        """The points of each measure."""
        names = dict.fromkeys(point.measure for point in self.points)
        return [[point for point in self.points if point.measure == name] for name in names]


def write(folder: Path, results: Results) -> None:
    """Write the four files, and print the tables but for that of all points.

    Raises:
        StudyError: `folder` can't be written to.
    """
    shown = summary(results)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _tables(folder, results, shown)
        figure.draw(results.lines, results.points, folder / f"{NAME}.png", results.published)
    except OSError as error:
        raise StudyError(f"--out: {folder} can't be written to ({error.strerror})") from error
    print(f"{shown}\n\nwritten: {folder / NAME}.md, .csv, .json, .png", flush=True)


def _tables(folder: Path, results: Results, shown: str) -> None:
    marked = [row for points in results.measures for row in _marked(results.lines, points)]
    with (folder / f"{NAME}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(marked[0]))
        writer.writeheader()
        writer.writerows(marked)
    content = {"points": marked, "targets": results.targets, "notes": results.notes}
    if results.published:
        curves = [curve._asdict() for curve in published.CURVES]
        content["published"] = {"hardware": published.HARDWARE, "curves": curves}
    (folder / f"{NAME}.json").write_text(report.as_json(content), encoding="utf-8")
    every = [f"## All points: {p[0].measure}\n\n{page.points_table(p, True)}" for p in results.measures]
    (folder / f"{NAME}.md").write_text("\n\n".join([shown, *every]) + "\n", encoding="utf-8")


def summary(results: Results) -> str:
    """The page without the table of all points."""
    parts = [
        "# Pretraining: what it gives, and what it takes",
        page.runs_table(results.lines, results.points),
    ]
    parts += [f"## Front: {p[0].measure}\n\n{page.points_table(p)}" for p in results.measures]
    if results.targets:
        parts.append(f"## Targets\n\n{page.targets_table(results.targets, results.priced)}")
    if results.published:
        parts.append(f"## Published, {published.HARDWARE}\n\n{page.published_table()}")
    if results.notes:
        parts.append("\n".join(f"- {line}" for line in results.notes))
    return "\n\n".join(parts)


def _marked(lines: list[Line], points: list[Point]) -> list[dict[str, Any]]:
    """A flat row for each point of one measure, with its marks: on the front, on the front of its run."""
    group_of = {run.name: line.name for line in lines for run in line.runs}
    over_all, own = fronts(points), own_fronts(points)
    return [
        {
            **{"run": p.run, "group": group_of[p.run], "measure": p.measure, "batch": p.batch},
            **p.spent._asdict(),
            "value": p.value,
            **{f"front_{axis}": p in over_all[axis] for axis in AXES},
            **{f"own_front_{axis}": p in own[axis] for axis in AXES},
        }
        for p in points
    ]
