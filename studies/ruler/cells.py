"""The cells of the study: examples of a task, a length and a seed, answered by a checkpoint."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from cadenza.data.text.prepared.key import key_of, tokenizer_digest
from cadenza.studies.report import Row
from cadenza.studies.ruler import models
from cadenza.studies.ruler.material import Material
from cadenza.studies.ruler.models import Checkpoint
from cadenza.studies.ruler.settings import Ruler
from cadenza.studies.ruler.tasks.table import FORMAT
from cadenza.studies.running import cells

FILE = "ruler.csv"


class Cell(NamedTuple):
    """What is scored at once."""

    model: str
    checkpoint: str
    task: str
    length: int
    seed: int


def cells_of(cfg: Ruler, checkpoint: Checkpoint, tasks: Iterable[str]) -> list[Cell]:
    """The cells of a checkpoint: short ones first, so that a stopped study has all tasks at some length."""
    return [
        Cell(checkpoint.model, checkpoint.path, task, length, seed)
        for length in sorted(cfg.lengths)
        for task in tasks
        for seed in cfg.seeds
    ]


def settings(cfg: Ruler, checkpoint: Checkpoint, tokenizer: Any, material: Material, made_of: Any) -> str:
    """A hash of what the cells of a checkpoint depend on beside their keys.

    The batch size isn't in it.
    """
    return key_of(
        {
            "format": FORMAT,
            "examples": cfg.examples,
            "dtype": cfg.dtype,
            "prose": made_of,
            "questions": {name: found.digest for name, found in material.questions.items()},
            "tokenizer": tokenizer_digest(tokenizer),
            "weights": models.identity(checkpoint),
        }
    )


def done(cfg: Ruler, settings: str) -> dict[Cell, Row]:
    """The rows of finished cells under these settings; of a cell that was done twice, the last."""
    rows = (row for row in cells.done(Path(cfg.out) / FILE) if row["settings"] == settings)
    return {_cell(row): row for row in rows}


def _cell(row: Row) -> Cell:
    return Cell(row["model"], row["checkpoint"], row["task"], int(row["length"]), int(row["seed"]))
