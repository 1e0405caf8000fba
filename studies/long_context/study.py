"""The study from its settings to its report."""

from pathlib import Path

from cadenza.studies.checks import intervals, plots
from cadenza.studies.long_context import cell, plan, report, tasks
from cadenza.studies.long_context.plan import Cell
from cadenza.studies.long_context.results import Results
from cadenza.studies.long_context.settings import LongContext
from cadenza.studies.report import Row
from cadenza.studies.running import cells
from cadenza.studies.running.side_by_side import Job, run_jobs, slots

FILE = "long_context.csv"


def study(cfg: LongContext) -> None:
    """Train and score what isn't there yet, and report."""
    plots()
    intervals()
    every = plan.cells(cfg)
    asked = None if cfg.ruler is None else tasks.settings(cfg, every)
    window = every[0].source.load().data.max_seq_len
    report.write(cfg, Results(measured(cfg, every)), window)
    if asked is not None:
        tasks.score(asked)


def measured(cfg: LongContext, every: list[Cell]) -> list[Row]:
    """The rows of all cells, those of earlier runs among them, in the order of `every`."""
    path = Path(cfg.out) / FILE
    done = {row["settings"] for row in cells.done(path)}
    todo = [each for each in every if each.settings not in done]
    if len(todo) < len(every):
        print(f"{len(every) - len(todo)} of {len(every)} cells are done")
    names = {each.name for each in todo}
    for _, row in run_jobs([_job(cfg, each, names) for each in todo], slots(cfg.processes)):
        cells.append(path, row)
    found = {row["settings"]: row for row in cells.done(path)}
    return [found[each.settings] for each in every]


def _job(cfg: LongContext, each: Cell, todo: set[str]) -> Job:
    after = frozenset({each.start.name} if each.start and each.start.name in todo else ())
    return Job(each.name, cell.measured, (cfg, each), after, each.folder / "log.txt")
