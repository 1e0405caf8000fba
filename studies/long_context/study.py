"""The study from its settings to its report."""

from pathlib import Path

from cadenza.studies.checks import intervals, plots
from cadenza.studies.long_context import cell, plan, report, tasks
from cadenza.studies.long_context.plan import Cell
from cadenza.studies.long_context.results import Results
from cadenza.studies.long_context.settings import LongContext
from cadenza.studies.report import Row
from cadenza.studies.running.missing import rows_of
from cadenza.studies.running.side_by_side import Job

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

    def job(each: Cell, todo: set[str]) -> Job:
        waits = each.start is not None and each.start.settings in todo
        after = frozenset({each.start.name} if each.start and waits else ())
        return Job(each.name, cell.measured, (cfg, each), after, each.folder / "log.txt")

    wanted = {each.settings: each for each in every}
    path = Path(cfg.out) / FILE
    return [*rows_of(path, wanted, lambda row: row["settings"], job, cfg.processes).values()]
