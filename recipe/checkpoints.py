"""Checkpoints of a recipe's runs: which one a run may load, and what to do about incomplete files."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from composer import Trainer
from composer.callbacks import CheckpointSaver
from composer.core import Algorithm
from composer.utils import dist

from cadenza.data.places import reason
from cadenza.recipe import build
from cadenza.recipe.callbacks import show
from cadenza.recipe.errors import RecipeError, TrainingError
from cadenza.recipe.runs import loaded
from cadenza.recipe.schema import Run
from cadenza.surgery.checkpoint import is_whole, read, saved_algorithms, unsafe_pickles

LATEST = "latest-rank0.pt"
NAME = re.compile(r"ep(\d+)-ba(\d+)-rank0\.pt")
TRUST = "set train.trust_load_path=true if you made it yourself"


def to_load(recipe: Run, algorithms: Sequence[Algorithm]) -> str | Path | None:
    """The checkpoint that the run loads, or None; raise if it is missing, unsafe, or trained on other rows.

    Raises:
        RecipeError: what is wrong with the checkpoint; raised before anything is loaded.
        CheckpointError: the file can't be read.
    """
    section = recipe.train
    path = section.load_path
    if section.autoresume:
        with dist.run_local_rank_zero_first():
            path = latest(recipe.checkpoints) or path
    if path is None:
        return None
    if not section.trust_load_path:
        refuse_foreign(path, recipe.folder)
    if "://" not in str(path):
        weights_only = (
            section.load_weights_only and path is section.load_path
        )  # an autoresume loads everything
        _check(path, recipe, build.packs_rows(algorithms), weights_only)
    return path


def _check(path: str | Path, recipe: Run, packed: bool, weights_only: bool) -> None:
    """Refuse a checkpoint that doesn't fit the recipe; say what is loaded of one that does."""
    state = read(path, trusted=True)
    loaded.refuse_other_model(path, state, recipe)
    refuse_other_data(path, state, packed, weights_only)
    loaded.refuse_switched_off(path, state, recipe, weights_only)
    for line in loaded.described(path, state, recipe, weights_only):
        show(line)


def count_earlier(trainer: Trainer, recipe: Run) -> None:
    """Let `train.keep_checkpoints` count the checkpoints that the run saved before it was resumed."""
    if recipe.train.autoresume and recipe.train.keep_checkpoints and dist.get_global_rank() == 0:
        earlier = [str(path) for path in _saved(recipe.checkpoints)]
        for callback in trainer.state.callbacks:
            if isinstance(callback, CheckpointSaver):
                callback.saved_checkpoints[:0] = earlier


def refuse_foreign(path: str | Path, own: Path) -> None:
    """Raise if loading `path` could run code in it, unless it stands in the run's own folder `own`.

    Composer unpickles what it loads. A local file is first read as plain data, which is safe from torch 2.10
    on. A file that Composer downloads is not.

    Raises:
        RecipeError: the message names the ways to load the file nevertheless.
    """
    if "://" in str(path):
        raise RecipeError(
            f"train.load_path: {path} would be downloaded and unpickled unchecked, which can run code; "
            f"download it and name the local file, or {TRUST}"
        )
    outside = Path(path).exists() and not Path(path).resolve().is_relative_to(own.resolve())
    if outside and (reason := unsafe_pickles()):
        raise RecipeError(
            f"train.load_path: {path} is not in the run's own folder {own}, and {reason}, or {TRUST}"
        )


def refuse_other_data(path: str | Path, state: dict[str, Any], packed: bool, weights_only: bool) -> None:
    """Raise if resuming from the checkpoint with this `state` would change the kind of training rows."""
    saved = "SequencePacking" in saved_algorithms(state)
    if saved != packed and not weights_only:
        rows = "packed rows" if saved else "rows of one sequence"
        right = "add algorithms.sequence_packing={}" if saved else "leave algorithms.sequence_packing out"
        raise RecipeError(f"{path}: trained on {rows}; to resume, {right}")


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint in `folder`; Composer's link is set to it.

    A process killed while saving leaves an incomplete file, or a complete one without a link. Composer would
    then train from the beginning, or refuse to overwrite the file. Incomplete files are removed. A copy of a
    folder may have a file in the link's place; it gets the name of its batch.
    """
    _name_copy(folder / LATEST)
    for path in _incomplete(folder):
        print(f"removed {path}: a run was stopped while saving it", flush=True)
        path.unlink(missing_ok=True)  # another node may have done so
    saved = _saved(folder)
    if not saved:
        (folder / LATEST).unlink(missing_ok=True)
        return None
    _point_at(saved[-1])
    return saved[-1]


@contextmanager
def saving_in(folder: Path) -> Iterator[None]:
    """Turn a failed save, such as a full disk, into an error that names the newest complete checkpoint."""
    before = {path: path.stat().st_mtime_ns for path in _incomplete(folder)}  # left by a killed run
    try:
        yield
    except (OSError, RuntimeError) as error:
        failed = [path for path in _incomplete(folder) if path.stat().st_mtime_ns != before.get(path)]
        if not failed:
            raise
        good = latest(folder)
        hint = f"{good} is complete: train.autoresume=true resumes from it" if good else "there is no other"
        why = reason(error, folder)
        raise TrainingError(f"{failed[-1]} couldn't be saved ({why}); {hint}") from error


def _name_copy(link: Path) -> None:
    if link.is_symlink() or not link.is_file():
        return
    if not is_whole(link):
        print(f"removed {link}: it isn't whole", flush=True)
        return link.unlink(missing_ok=True)
    (time,) = read(link, trusted=True)["timestamp"].values()
    named = link.with_name(f"ep{time['epoch']}-ba{time['batch']}-rank0.pt")
    if not (named.exists() and is_whole(named)):
        link.replace(named)


def _saved(folder: Path) -> list[Path]:
    """The checkpoints by batch, then epoch, in their names: copying a file changes its time."""
    named = [(NAME.fullmatch(path.name), path) for path in folder.glob("ep*-rank0.pt")]
    return [path for _, _, path in sorted((int(m[2]), int(m[1]), path) for m, path in named if m)]


def _incomplete(folder: Path) -> list[Path]:
    return [path for path in _saved(folder) if not is_whole(path)]


def _point_at(checkpoint: Path) -> None:
    link = checkpoint.with_name(LATEST)
    if link.exists() and link.resolve() == checkpoint.resolve():
        return
    temporary = link.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    os.symlink(checkpoint.name, temporary)
    temporary.replace(link)
