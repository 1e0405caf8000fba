"""Checkpoints of a recipe's runs: those that a run can go on from, and what a killed run left behind."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cadenza.recipe.errors import RecipeError, TrainingError
from cadenza.surgery.checkpoint import is_whole, read, saved_algorithms, unsafe_pickles

LATEST = "latest-rank0.pt"
NAME = re.compile(r"ep(\d+)-ba(\d+)-rank0\.pt")
TRUST = "set train.trust_load_path=true if you made it yourself"


def refuse_foreign(path: str | Path, own: Path) -> None:
    """Raise if loading `path` could run code that is in it, and it isn't of the run's folder `own`.

    Composer unpickles what it loads. A local file is read before, as plain data, which is safe from torch
    2.10 on; one that Composer downloads is not.

    Raises:
        RecipeError: the message says what to do about it.
    """
    if "://" in str(path):
        raise RecipeError(
            f"train.load_path: {path} would be downloaded and unpickled unread, which runs any code in it; "
            f"download it and name the file, or {TRUST}"
        )
    outside = Path(path).exists() and not Path(path).resolve().is_relative_to(own.resolve())
    if outside and (reason := unsafe_pickles()):
        raise RecipeError(
            f"train.load_path: {path} is not in the run's own folder {own}, and {reason}, or {TRUST}"
        )


def refuse_other_data(path: str | Path, packed: bool, weights_only: bool) -> None:
    """Raise if there's no checkpoint at `path`, or if a run that goes on from it would get other rows."""
    theirs = "SequencePacking" in saved_algorithms(read(path, trusted=True))
    if theirs != packed and not weights_only:
        rows = "packed rows" if theirs else "rows of one sequence"
        right = "add algorithms.sequence_packing={}" if theirs else "leave algorithms.sequence_packing out"
        raise RecipeError(f"{path}: trained on {rows}; to go on, {right}")


def latest(folder: Path) -> Path | None:
    """The last whole checkpoint in `folder`, to which Composer's link then points.

    A process killed while it saves leaves a part of a file, or a file to which no link points yet; Composer
    would start again from the beginning, or refuse to save over it. The parts are removed.
    """
    for path in _parts(folder):
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
    """Turn a failure to save, such as a full disk, into an error that names the last good checkpoint."""
    before = {path: path.stat().st_mtime_ns for path in _parts(folder)}  # of a run that was killed
    try:
        yield
    except (OSError, RuntimeError) as error:
        parts = [path for path in _parts(folder) if path.stat().st_mtime_ns != before.get(path)]
        if not parts:
            raise
        good = latest(folder)
        stands = f"{good} is whole: train.autoresume=true goes on from it" if good else "there is no other"
        reason = str(error).splitlines()[0]
        raise TrainingError(f"{parts[-1]} couldn't be saved ({reason}); {stands}") from error


def _saved(folder: Path) -> list[Path]:
    """By the batch in their names, and by the epoch where it ended with that batch: files may be copied."""
    named = [(NAME.fullmatch(path.name), path) for path in folder.glob("ep*-rank0.pt")]
    return [path for _, _, path in sorted((int(m[2]), int(m[1]), path) for m, path in named if m)]


def _parts(folder: Path) -> list[Path]:
    return [path for path in _saved(folder) if not is_whole(path)]


def _point_at(checkpoint: Path) -> None:
    link = checkpoint.with_name(LATEST)
    if link.exists() and link.resolve() == checkpoint.resolve():
        return
    temporary = link.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    os.symlink(checkpoint.name, temporary)
    temporary.replace(link)
