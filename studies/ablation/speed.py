"""The time of a training step of each row, measured in one process, in which the rows alternate.

The clock of a long run doesn't tell it: runs side by side slow each other, and the speed of a shared machine
changes. In rounds that alternate, all rows see the same changes.
"""

import statistics
import time
from itertools import pairwise
from typing import Any

import torch
from composer import Trainer
from composer.core import Callback, Event, State, Timestamp
from composer.loggers import Logger

from cadenza.recipe import run as recipe_run
from cadenza.recipe import trainer as recipe_trainer
from cadenza.recipe.cpu.memory import keep_freed_memory
from cadenza.studies.running.source import Source

STEPS = 5  # of a row in a round; the first one only starts the clock
WARM = 2  # rounds that aren't counted
BUILDING = ("train.save_interval=null", "train.eval_first=false", "train.autoresume=false")


class Clock(Callback):
    """Notes when each batch has ended.

    On one thread of a CPU it counts CPU time, which other programs add nothing to; else it counts wall time.

    Args:
        workers: the processes that load batches, whose work isn't this process's.
    """

    def __init__(self, workers: int) -> None:
        alone = not torch.cuda.is_available() and torch.get_num_threads() == 1 and not workers
        self.now = time.process_time if alone else time.perf_counter
        self.ends: list[float] = []

    def batch_end(self, state: State, logger: Logger) -> None:
        self.ends.append(self.now())

    def step(self) -> float:
        """Seconds of a step, its batch included: the median since the last call."""
        ends, self.ends = self.ends, []
        return statistics.median(after - before for before, after in pairwise(ends))


class Stepper:
    """A row's real training: surgeries, optimizer, the recipe's batches, Composer's loop."""

    def __init__(self, source: Source) -> None:
        recipe = source.load(*BUILDING, f"train.max_duration={STEPS}ba")
        self.clock, task = Clock(recipe.data.num_workers), recipe_run.task_of(recipe)
        settings: dict[str, Any] = {
            **recipe_trainer.trainer_settings(recipe),
            "callbacks": [self.clock],
            "eval_interval": never,
            "spin_dataloaders": False,
        }
        self.trainer: Trainer = recipe_run.built_of(task, settings).trainer

    def turn(self, turn: int) -> float:
        """Seconds of a step in a training of `STEPS` batches; each turn has other batches."""
        self.trainer.state.timestamp = Timestamp(epoch=turn)
        self.trainer.fit(duration=f"{STEPS}ba")
        return self.clock.step()


def never(state: State, event: Event) -> bool:
    """Whether to evaluate."""
    return False


def measure(rows: dict[str, Source], rounds: int) -> dict[str, list[float]]:
    """Seconds of a step by row, one number for each round."""
    keep_freed_memory()  # as every run on a CPU does
    steppers = {name: Stepper(source) for name, source in rows.items()}
    found: dict[str, list[float]] = {name: [] for name in rows}
    for turn in range(WARM + rounds):
        for name in list(rows)[:: 1 if turn % 2 else -1]:
            found[name].append(steppers[name].turn(turn))
    return {name: seconds[WARM:] for name, seconds in found.items()}
