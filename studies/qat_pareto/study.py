"""The study from its settings to its report."""

from pathlib import Path

from cadenza.studies.checks import StudyError, intervals, plots
from cadenza.studies.qat_pareto import cell as cell_module
from cadenza.studies.qat_pareto import page
from cadenza.studies.qat_pareto.collecting import Finished, collect
from cadenza.studies.qat_pareto.plan import Plan
from cadenza.studies.qat_pareto.points import Point
from cadenza.studies.qat_pareto.results import Results
from cadenza.studies.qat_pareto.settings import Pareto
from cadenza.studies.report import Row
from cadenza.studies.running import cells
from cadenza.studies.running.alone import alone
from cadenza.studies.running.missing import rows_of
from cadenza.studies.running.side_by_side import Job

FILE = "qat_pareto.csv"
SCORES = ("accuracy", "loss")


def study(cfg: Pareto) -> None:
    """Collect and measure the points that aren't there yet, and report."""
    plots()
    intervals()
    plan = Plan(cfg)
    for point in plan.points:
        plan.cell(point)  # raises errors in a recipe before anything is trained
    finished = collect(plan)
    plan.collected |= {point: run.folder for point, run in finished.items()}
    with alone(Path(cfg.out)):
        rows = measured(plan, finished)
        missing = [point for point in plan.points if point not in rows]
        if not rows:
            raise StudyError("train is false, and none of the points is there; name the folders by runs")
        page.write(cfg, Results(list(rows.values())), missing)


def measured(plan: Plan, finished: dict[Point, Finished]) -> dict[Point, Row]:
    """The row of each point; without training, of those that are there."""
    path = Path(plan.cfg.out) / FILE
    every = {(point.name, plan.settings(point)): point for point in plan.points}
    done = _keep_collected(path, plan, finished)
    if not plan.cfg.train:
        every = {key: point for key, point in every.items() if key in done}
    else:
        plan.refuse_without_weights()
    found = rows_of(path, every, _key, _Jobs(plan), plan.cfg.processes)
    return {every[key]: row for key, row in found.items()}


class _Jobs:
    """Makes the job of a point, which waits for those that are trained before it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def __call__(self, point: Point, todo: set[tuple[str, str]]) -> Job:
        plan, first = self.plan, self.plan.after(point)
        after = frozenset(each.name for each in first if (each.name, plan.settings(each)) in todo)
        log = Path(plan.cfg.out) / "logs" / f"{point.name}-{plan.settings(point)}.txt"
        return Job(point.name, cell_module.measured, (plan.cell(point),), after, log)


def _keep_collected(path: Path, plan: Plan, finished: dict[Point, Finished]) -> set[tuple[str, str]]:
    """Add the rows of collected runs to the file; the keys of all rows in it.

    Raises:
        StudyError: the file is of another version, or has other scores of a point than its collected run.
    """
    kept = {_key(row): row for row in _read(path)}
    for point, run in finished.items():
        key = (point.name, plan.settings(point))
        if key not in kept:
            made = cell_module.row(plan.cell(point), run.scores, str(run.folder))
            cells.append(path, made)
            kept[key] = made
        elif any(str(kept[key][name]) != str(run.scores[name]) for name in SCORES):
            where = f"{run.folder} is {point.name}, and disagrees with {kept[key]['run']}"
            raise StudyError(f"runs: {where}, whose row {path} has; leave it out, or name another out")
    return set(kept)


def _read(path: Path) -> list[Row]:
    rows = cells.done(path)
    if rows and "variant" not in rows[0]:
        raise StudyError(f"out: {path} is of an earlier version of this study; name another folder")
    return rows


def _key(row: Row) -> tuple[str, str]:
    return Results.point(row).name, row["settings"]
