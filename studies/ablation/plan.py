"""Which runs the ablation takes: minutes become steps, and each row, seed and number of steps is a cell."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cadenza.studies.running.source import Source, digest

BUDGETS = ("steps", "time")
EVALUATIONS = 12  # of a pretraining run


@dataclass(frozen=True)
class Cell:
    """A row that is pretrained with a seed for a number of steps, and then fine-tuned.

    Args:
        out: the folder of the runs.
    """

    row: str
    seed: int
    steps: int
    source: Source
    finetune: Source | None
    out: str

    @property
    def lasting(self) -> tuple[str, ...]:
        """The pairs of the pretraining that its results depend on."""
        interval = -(-self.steps // EVALUATIONS)
        return f"seed={self.seed}", f"train.max_duration={self.steps}ba", f"train.eval_interval={interval}ba"

    @cached_property
    def settings(self) -> str:
        """A hash of both recipes, by which a finished cell is recognized."""
        return digest(self.source.settings, self.lasting, self.finetune and self.finetune.settings)

    @property
    def name(self) -> str:
        """The name of its run."""
        return f"{self.row}-{self.steps}-{self.seed}-{self.settings}"

    @property
    def folder(self) -> Path:
        """The folder of its pretraining run."""
        return Path(self.out) / self.name


def steps_of(minutes: float, seconds: Mapping[str, float], baseline: str) -> dict[str, dict[str, int]]:
    """Row -> budget -> steps: those of the baseline, and those that the row makes in the minutes.

    Args:
        seconds: of a step, by row.
    """

    def within(name: str) -> int:
        return max(round(60 * minutes / seconds[name]), 1)

    return {name: {"steps": within(baseline), "time": within(name)} for name in seconds}


def cells(
    rows: Mapping[str, Source],
    finetune: Source | None,
    steps: Mapping[str, Mapping[str, int]],
    seeds: list[int],
    out: str,
) -> list[Cell]:
    """All cells, seed by seed; where both budgets are the same number of steps there is one."""
    return [
        Cell(name, seed, count, source, finetune, out)
        for seed in seeds
        for name, source in rows.items()
        for count in dict.fromkeys(steps[name].values())
    ]
