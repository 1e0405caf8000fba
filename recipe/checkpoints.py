"""Checkpoints of a recipe's runs: those that a run can go on from, and what a killed run left behind."""

import os
from pathlib import Path

from cadenza.recipe.errors import RecipeError
from cadenza.surgery.checkpoint import is_whole, read, saved_algorithms

LATEST = "latest-rank0.pt"


def refuse_other_data(path: str | Path, packed: bool, weights_only: bool) -> None:
    """Raise if there's no checkpoint at `path`, or if a run that goes on from it would get other rows."""
    theirs = "SequencePacking" in saved_algorithms(read(path))
    if theirs != packed and not weights_only:
        rows = "packed rows" if theirs else "rows of one sequence"
        right = "add algorithms.sequence_packing={}" if theirs else "leave algorithms.sequence_packing out"
        raise RecipeError(f"{path}: trained on {rows}; to go on, {right}")


def latest(folder: Path) -> Path | None:
    """The last whole checkpoint in `folder`, to which Composer's link then points.

    A process killed while it saves leaves a part of a file, or a file to which no link points yet; Composer
    would start again from the beginning, or refuse to save over it. The parts are removed.
    """
    link, whole = folder / LATEST, []
    for path in sorted(folder.glob("ep*-ba*-rank0.pt"), key=lambda path: path.stat().st_mtime_ns):
        if is_whole(path):
            whole.append(path)
        else:
            print(f"removed {path}: a run was stopped while saving it", flush=True)
            path.unlink()
    if not whole:
        link.unlink(missing_ok=True)
        return None
    if not link.exists() or link.resolve() != whole[-1].resolve():
        temporary = link.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        os.symlink(whole[-1].name, temporary)
        temporary.replace(link)
    return whole[-1]
