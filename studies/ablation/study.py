"""The ablation from its settings to its report."""

from pathlib import Path

from cadenza.studies.ablation import cell, plan, recipes, report, speed, speeds
from cadenza.studies.ablation.plan import Cell
from cadenza.studies.ablation.results import Results, comparisons
from cadenza.studies.ablation.settings import Ablation
from cadenza.studies.ablation.speeds import Speeds
from cadenza.studies.checks import intervals, plots
from cadenza.studies.report import Row
from cadenza.studies.running.missing import rows_of
from cadenza.studies.running.side_by_side import Job, run_jobs, slots
from cadenza.studies.running.slots import THREADS
from cadenza.studies.running.source import Source

FILE = "ablation.csv"


def study(cfg: Ablation) -> None:
    """Measure, train and report what isn't there yet."""
    plots()
    intervals()
    rows, finetune = recipes.of_rows(cfg), recipes.of_finetuning(cfg)
    found = measured_speeds(cfg, rows)
    seconds = {name: found.seconds(name) for name in rows}
    steps = plan.steps_of(cfg.minutes, seconds, cfg.baseline)
    every = plan.cells(rows, finetune, steps, cfg.seeds, str(Path(cfg.out) / "runs"))
    results = Results(trained(cfg, every), steps, found, cfg.baseline)
    report.write(Path(cfg.out), cfg, results, comparisons(cfg, rows))


def measured_speeds(cfg: Ablation, rows: dict[str, Source]) -> Speeds:
    """The speeds of all rows: those that were kept, and the others after they are measured."""
    folder, slot = Path(cfg.out), slots(cfg.processes)[0]
    keys = speeds.keys(rows, cfg.baseline, slot.environment.get(THREADS, "CUDA"), cfg.rounds)
    kept = speeds.read(folder, keys, cfg.rounds)
    if kept:
        print(f"speed of {len(kept)} of {len(rows)} rows: as measured before, {folder / speeds.FILE}")
    if missing := [name for name in rows if name not in kept]:
        asked = {name: rows[name] for name in rows if name in (cfg.baseline, *missing)}
        job = Job("speed", speed.measure, (asked, cfg.rounds), log=folder / "speed.log")
        ((_, measured),) = run_jobs([job], [slot])
        speeds.keep(folder, measured, missing, cfg.baseline, keys)
    return Speeds(speeds.read(folder, keys, cfg.rounds), cfg.baseline)


def trained(cfg: Ablation, every: list[Cell]) -> list[Row]:
    """The rows of all cells, those of earlier runs among them."""

    def job(each: Cell, _: object) -> Job:
        return Job(each.name, cell.measured, (each,), log=each.folder / "log.txt")

    wanted = {(each.row, each.settings): each for each in every}
    return [*rows_of(Path(cfg.out) / FILE, wanted, _key, job, cfg.processes).values()]


def _key(row: Row) -> tuple[str, str]:
    return row["row"], row["settings"]
