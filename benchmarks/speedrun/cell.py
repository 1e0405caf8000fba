"""One run of a record with one seed: a cell of a comparison."""

import json
import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from clock import Clock
from composer.utils import dist
from evaluation import Pretraining
from records import Record
from tracks import TRACKS, cores

from cadenza.recipe import record as run_record
from cadenza.recipe.cpu.memory import keep_freed_memory
from cadenza.recipe.run import built_of
from cadenza.recipe.runs import kept_recipe, places
from cadenza.recipe.trainer import trainer_settings
from cadenza.studies.report import Row
from cadenza.studies.running.source import digest

RUNS = Path("runs/speedrun")
APART = ("train.save_interval=null", "train.eval_first=false", f"train.run_folder={RUNS}")


@dataclass(frozen=True)
class Cell:
    """A record, or a candidate, and a seed.

    Args:
        progress: whether to show a progress bar.
    """

    folder: Path
    track: str
    pairs: tuple[str, ...]
    seed: int
    progress: bool = False

    @property
    def record(self) -> Record:
        """What is run."""
        return Record(self.folder, TRACKS[self.track], self.pairs)

    @property
    def settings(self) -> str:
        """A hash of the recipe and the commit, by which a finished cell is recognized."""
        return digest(self.record.source.settings, run_record.commit())

    @property
    def name(self) -> str:
        """The name of its run."""
        return f"{self.track}/{self.record.name}-{self.seed}-{self.settings}"

    @property
    def log(self) -> Path:
        """The file of what the run prints."""
        return RUNS / self.name / "log.txt"

    @property
    def lasting(self) -> tuple[str, ...]:
        """The pairs of this run."""
        interval = 1 / TRACKS[self.track].evaluations
        bar = f"train.progress_bar={str(self.progress).lower()}"
        return (f"seed={self.seed}", f"name={self.name}", f"train.eval_interval={interval}dur", bar, *APART)


def measured(cell: Cell) -> Row:
    """Train the cell; its time and its loss.

    Raises:
        StudyError: a machine of another class, or a recipe that breaks a rule.
    """
    track, clock = TRACKS[cell.track], Clock()
    track.refuse_other_machine()
    _keep_to(track.threads)
    recipe = cell.record.recipe(*cell.lasting)
    places.prepare(recipe)
    kept_recipe.write(recipe)
    settings = trainer_settings(recipe)
    settings["callbacks"] = [clock, *settings["callbacks"]]
    dist.initialize_dist("gpu" if track.cuda else "cpu")
    task = Pretraining(recipe, track)
    found = {"digest": task.digest(), **_run(task, settings, clock)}
    named = {"record": cell.record.name, "seed": cell.seed, "settings": cell.settings}
    return {**named, **found, "machine": json.dumps(machine(track.threads))}


def _run(task: Pretraining, settings: dict[str, Any], clock: Clock) -> Row:
    trainer = built_of(task, settings).trainer
    task.check(trainer.state.model)
    try:
        trainer.fit()
    finally:
        trainer.close()
    time = trainer.state.timestamp
    return {
        **{"seconds": clock.wall.total, "cpu_seconds": clock.cpu.total},
        "composer_seconds": time.total_wct.total_seconds(),
        **{"loss": clock.curve[-1]["loss"], "batches": time.batch.value, "tokens": time.token.value},
        "parameters": sum(parameter.numel() for parameter in trainer.state.model.parameters()),
        "curve": json.dumps(clock.curve),
    }


def _keep_to(threads: int | None) -> None:
    """Compute on so many cores of this machine, loading included."""
    if threads is None:
        return
    keep_freed_memory()  # as every run on a CPU does
    torch.set_num_threads(threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores()[:threads])


def machine(threads: int | None) -> dict[str, Any]:
    """What the seconds depend on besides the recipe."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_name()
    commit = run_record.commit()
    return {
        **{"device": device, "cores": os.cpu_count(), "threads": threads},
        **{"commit": commit.removesuffix("-dirty"), "dirty": commit.endswith("-dirty")},
        **{"date": datetime.now(UTC).date().isoformat(), "versions": run_record.versions()},
    }


def cpu_name() -> str:
    """The model of the CPU."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.split(": ", 1)[1] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
