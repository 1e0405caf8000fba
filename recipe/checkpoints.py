"""Checkpoints of a recipe's runs: found whole, refused in words, left behind by a run that was killed."""

import os
import pickle
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch

from cadenza.recipe.errors import RecipeError
from cadenza.surgery.resume import saved_algorithms

LATEST = "latest-rank0.pt"


def read(path: str | Path) -> dict[str, Any]:
    """The content of a Composer checkpoint; its tensors stay on the disk until they are used.

    Raises:
        RecipeError: no such file, not all of it, or something else.
    """
    path = Path(path)
    if not path.is_file():
        there = sorted(str(p) for p in path.parent.glob("*.pt")) if path.parent.is_dir() else []
        hint = f"; there are {', '.join(there[-3:])}" if there else ""
        raise RecipeError(f"{path}: there is no such checkpoint{hint}")
    if not is_zipfile(path):  # the directory of a zip file is its end
        raise RecipeError(f"{path}: not a whole checkpoint; it was cut off, or is another kind of file")
    try:
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=False)
    except (RuntimeError, pickle.UnpicklingError, ImportError, AttributeError, EOFError) as error:
        raise RecipeError(f"{path}: can't be read ({' '.join(str(error).split())[:200]})") from error
    state = content.get("state") if isinstance(content, dict) else None
    if not isinstance(state, dict) or "model" not in state:
        raise RecipeError(f"{path}: no checkpoint of Composer: it holds no state.model")
    return content


def refuse_other_data(path: str | Path, packed: bool, weights_only: bool) -> None:
    """Raise if there's no checkpoint at `path`, or if a run that goes on from it would get other rows."""
    theirs = "SequencePacking" in saved_algorithms(read(path)["state"])
    if theirs != packed and not weights_only:
        rows = "packed rows" if theirs else "rows of one sequence"
        right = "add algorithms.sequence_packing={}" if theirs else "leave algorithms.sequence_packing out"
        raise RecipeError(f"{path}: trained on {rows}; to go on, {right}")


def latest(folder: Path) -> Path | None:
    """The last whole checkpoint in `folder`, to which Composer's link then points.

    A process killed while it saves leaves a part of a file, or a file to which no link points yet; Composer
    would start again from the beginning, or refuse to save over it. The parts are removed.
    """
    link = folder / LATEST
    whole = []
    for path in sorted(folder.glob("ep*-ba*-rank0.pt"), key=lambda path: path.stat().st_mtime_ns):
        if is_zipfile(path):
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
