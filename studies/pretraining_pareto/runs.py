"""A run's folder, as the study sees it: what was spent up to each batch, and its evaluations."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from cadenza.recipe.record import FILE as RECORD
from cadenza.recipe.runs import kept_recipe, rows
from cadenza.studies.checks import StudyError
from cadenza.studies.pretraining_pareto.points import Point, Spent

PRETRAINING = ("masked_lm", "causal_lm")


@dataclass(frozen=True)
class Run:
    """A pretraining run.

    Args:
        spent: batch -> what training took up to its end.
        losses: batch -> evaluation loss.
        device: of its record; None of a run that hasn't ended.
    """

    name: str
    folder: Path
    recipe: dict[str, Any]
    spent: dict[int, Spent]
    losses: dict[int, float]
    device: dict[str, Any] | None

    @property
    def points(self) -> list[Point]:
        """Its evaluations, by batch."""
        return [Point(self.name, "loss", b, self.spent[b], loss) for b, loss in sorted(self.losses.items())]

    @property
    def last(self) -> int:
        """The last batch."""
        return max(self.spent)

    @property
    def devices(self) -> str:
        """Such as `8 x NVIDIA A100-SXM4-80GB`; empty if it isn't known."""
        if self.device is None:
            return ""
        return f"{self.device['world_size']} x {self.device.get('name') or self.device['kind']}"


def read_all(folders: Sequence[Path]) -> list[Run]:
    """The runs in `folders`, each once, in this order.

    Raises:
        StudyError: a folder holds no run, or one whose metrics aren't whole.
    """
    once = list({folder.expanduser().resolve(): folder.expanduser() for folder in folders}.values())
    names = [folder.resolve().name for folder in once]
    unique = [name if names.count(name) == 1 else str(f) for f, name in zip(once, names, strict=True)]
    return [read(folder, name) for folder, name in zip(once, unique, strict=True)]


def read(folder: Path, name: str) -> Run:
    """The run in `folder`.

    Raises:
        StudyError: as of `read_all`.
    """
    if not (folder / rows.FILE).is_file():
        raise StudyError(f"{folder}: there is no {rows.FILE} in it{_hint(folder)}")
    recipe = kept_recipe.read(folder / kept_recipe.FILE)
    if recipe is None:
        raise StudyError(f"{folder}: there is no {kept_recipe.FILE} in it, by which runs are compared")
    objective = recipe.get("model", {}).get("objective")
    if objective not in PRETRAINING:
        raise StudyError(f"{folder} is a run of {objective}; it must be one of {' or '.join(PRETRAINING)}")
    try:
        spent, losses = _metrics(folder)
    except (KeyError, TypeError) as error:
        raise StudyError(f"{folder / rows.FILE}: it isn't the file of a run ({error!r})") from error
    return Run(name, folder, recipe, spent, losses, _device(folder, max(spent)))


def _metrics(folder: Path) -> tuple[dict[int, Spent], dict[int, float]]:
    """`spent` and `losses` of a run; the last evaluation counts where a batch has two."""
    found = rows.read(folder / rows.FILE)
    evaluations = rows.curve(found)
    _refuse_gaps(folder, [row["batch"] for row in found if "evaluation" not in row])
    spent = {row["batch"]: _spent(row) for row in found}
    losses = {row["batch"]: row["loss"] for row in evaluations if row.get("loss") is not None}
    return spent, losses


def _spent(row: dict[str, Any]) -> Spent:
    """The first evaluation of a run has no tokens, since there were none yet."""
    tokens = row.get("tokens", 0 if row["batch"] == 0 else None)
    return Spent(row["seconds"] / 3600, tokens, row.get("flops"))


def _refuse_gaps(folder: Path, batches: list[int]) -> None:
    """Raise unless there is a row for each batch: in a gap a target may have been reached."""
    if not batches:
        raise StudyError(f"{folder}: nothing was trained yet")
    if batches[0] != 1:
        why = f"its metrics begin at batch {batches[0]}: it was resumed from a checkpoint of another folder"
        raise StudyError(f"{folder}: {why}; resume by train.autoresume=true in the run's own folder")
    for before, after in pairwise(batches):
        if after != before + 1:
            raise StudyError(f"{folder}: its metrics go from batch {before} to {after}; they must be whole")


def _device(folder: Path, last: int) -> dict[str, Any] | None:
    """The record's `device`; None if there is no record, or one of an earlier training in the folder."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return record["device"] if record["train"]["batches"] == last else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _hint(folder: Path) -> str:
    inside = sorted(path.parent for path in folder.glob(f"*/{rows.FILE}"))
    return f"; name the runs in it, such as {inside[0]}" if inside else "; name a run's folder, as runs/NAME"
