"""The tracks: what a record may not change, and the loss that it must reach."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from cadenza.recipe import load
from cadenza.recipe.schema import Recipe
from cadenza.studies.checks import StudyError

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Track:
    """A class of machines with its text and its target.

    Args:
        target: the evaluation loss that a record must reach, in nats per masked token; None: not set yet.
        base: the recipe files whose text, split, vocabulary and evaluation all records have.
        threads: those of torch, and the cores that a run may use; None: all.
        seed: of the evaluation's masks, whatever the seed of a run.
        evaluations: how many a run has, the last one at its end.
    """

    name: str
    target: float | None
    base: tuple[str, ...]
    threads: int | None
    cuda: bool = False
    batch_size: int = 64  # of the evaluation
    seed: int = 17
    evaluations: int = 5

    @property
    def recipe(self) -> Recipe:
        """The recipe of `base`."""
        return load([str(ROOT / file) for file in self.base], [])

    @property
    def records(self) -> Path:
        """The folder of the records, one folder each."""
        return FOLDER / "records" / self.name

    @property
    def tried(self) -> Path:
        """The folder of what was verified and is no record."""
        return FOLDER / "tried" / self.name

    def refuse_other_machine(self) -> None:
        """Raise `StudyError` if this machine isn't of the track's class."""
        if self.cuda and not torch.cuda.is_available():
            raise StudyError(f"track {self.name} needs a CUDA device, and there is none: NOT MEASURED HERE")
        if not self.cuda and torch.cuda.is_available():
            raise StudyError(f"track {self.name} is for CPUs; hide the GPU with CUDA_VISIBLE_DEVICES=''")
        if self.threads and len(cores()) < self.threads:
            raise StudyError(f"track {self.name} needs {self.threads} cores; there are {len(cores())}")


def cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


TRACKS = {
    # The base recipe ends at 4.422, the mean of three seeds.
    "cpu": Track("cpu", 4.43, ("yamls/mosaicbert.yaml", "yamls/scale/cpu.yaml"), threads=2),
    "h100": Track("h100", None, ("yamls/mosaicbert.yaml",), threads=None, cuda=True, batch_size=512),
}
