"""The study: each cell that isn't done yet is trained in a process of its own, and gets a row in glue.csv."""

import json
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cadenza.recipe import run as recipe_run
from cadenza.studies.checks import plots
from cadenza.studies.glue.plan import Plan
from cadenza.studies.glue.recipes import PRETRAINED, Cell
from cadenza.studies.glue.scores import scores
from cadenza.studies.glue.settings import Glue
from cadenza.studies.report import Row
from cadenza.studies.running import cells
from cadenza.studies.running.alone import alone
from cadenza.studies.running.side_by_side import Job, Slot, run_jobs, slots
from cadenza.studies.running.source import trained

FILE, LOG, MODEL = "glue.csv", "log.txt", "model"


def run(cfg: Glue) -> dict[Cell, Row]:
    """Train the missing cells; returns the rows of all cells, with those of earlier runs."""
    plots()
    places, plan = slots(cfg.processes), Plan(cfg)
    plan.check()
    with alone(Path(cfg.out)):
        return _run(plan, places)


def _run(plan: Plan, places: list[Slot]) -> dict[Cell, Row]:
    cfg = plan.cfg
    every = plan.cells()
    todo = _missing(plan, every)
    _check_tried(plan, todo, places)
    kept = {source for cell in every for source in plan.candidates(cell)}
    for job, row in run_jobs(_jobs(plan, todo), places):
        cells.append(Path(cfg.out) / FILE, row)
        cell = job.arguments[1]
        if not cfg.keep_models and cell not in kept:
            _remove_weights(plan.recipes.folder(cell))
    return rows_of(plan, every)


def _check_tried(plan: Plan, todo: list[Cell], places: list[Slot]) -> None:
    """Read the data of each task, and build each model, whose cells are to be trained.

    Raises:
        StudyError: data that can't be read, or a model that can't be built; nothing is trained then.
    """
    for name in dict.fromkeys(cell.task for cell in todo):
        plan.check_data(name)
    first = {cell.model: cell for cell in reversed(todo) if cell.start == PRETRAINED}
    jobs = [Job(f"models: {model}", build_model, (plan.cfg, cell)) for model, cell in first.items()]
    for _ in run_jobs(jobs, places):
        pass


def build_model(cfg: Glue, cell: Cell) -> None:
    """Build all that the run of a cell needs, and train nothing."""
    recipe_run.dry_run(Plan(cfg).recipes.of(cell, cell.model))


def rows_of(plan: Plan, every: Iterable[Cell]) -> dict[Cell, Row]:
    """The rows of those cells that are done under these settings; of a cell that was done twice, the last."""
    rows = cells.done(Path(plan.cfg.out) / FILE)
    found = {tuple(row[key] for key in (*Cell._fields, "settings")): row for row in rows}
    keys = {cell: (*map(str, cell), plan.recipes.settings(cell)) for cell in every}
    return {cell: found[key] for cell, key in keys.items() if key in found}


def _missing(plan: Plan, every: list[Cell]) -> list[Cell]:
    """The cells to train: those without a row, and those whose model another one needs and that is gone."""
    done = rows_of(plan, every)
    todo = {cell for cell in every if cell not in done}
    needed = {source for cell in todo for source in plan.candidates(cell)}
    todo |= {cell for cell in needed if not (plan.recipes.folder(cell) / MODEL).is_dir()}
    return [cell for cell in every if cell in todo]


def _jobs(plan: Plan, todo: list[Cell]) -> list[Job]:
    def job(cell: Cell) -> Job:
        after = frozenset(each.name for each in plan.waits_for(cell) if each in todo)
        return Job(cell.name, train_cell, (plan.cfg, cell), after, plan.recipes.folder(cell) / LOG)

    return [job(cell) for cell in todo]


def train_cell(cfg: Glue, cell: Cell) -> Row:
    """Train a cell in this process; returns its row."""
    began, plan = time.time(), Plan(cfg)
    pretrained = _start(plan, cell)
    recipe = plan.recipes.of(cell, pretrained)
    record = trained(recipe)
    return {
        **cell._asdict(),
        "metrics": json.dumps(measured(record)),
        "training_seconds": record["train"]["seconds"],
        "began": began,
        "ended": time.time(),
        "pretrained": pretrained,
        "run": str(recipe.folder),
        "settings": plan.recipes.settings(cell),
    }


def measured(record: dict[str, Any]) -> dict[str, float]:
    """The numbers of a record's `eval`, and those of its `others` as `NAME.accuracy`."""
    texts = {"": record["eval"], **{f"{name}.": found for name, found in record.get("others", {}).items()}}
    return {f"{prefix}{name}": value for prefix, found in texts.items() for name, value in found.items()}


def _start(plan: Plan, cell: Cell) -> str:
    """What a cell starts from: its model, or the folder of the model that another task left."""
    found = plan.candidates(cell)
    if not found:
        return cell.model
    if len(found) > 1:
        (best,) = scores(plan.cfg, rows_of(plan, plan.waits_for(cell)))
        found = [source for source in found if source.learning_rate == best.learning_rate]
    return str(plan.recipes.folder(found[0]) / MODEL)


def _remove_weights(run: Path) -> None:
    for name in (MODEL, "checkpoints"):
        shutil.rmtree(run / name, ignore_errors=True)
