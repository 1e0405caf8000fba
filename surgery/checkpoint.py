"""A Composer checkpoint as a file: read, or refused in words."""

import pickle
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch

from cadenza.surgery.errors import CheckpointError


def read(path: str | Path) -> dict[str, Any]:
    """The `state` of a Composer checkpoint; its tensors stay on the disk until they are used.

    It's unpickled: read only what you trust.

    Raises:
        CheckpointError: no such file, not all of it, or something else.
    """
    path = Path(path)
    if not path.is_file():
        there = sorted(str(p) for p in path.parent.glob("*.pt")) if path.parent.is_dir() else []
        hint = f"; there are {', '.join(there[-3:])}" if there else ""
        raise CheckpointError(f"{path}: there is no such checkpoint{hint}")
    if not is_whole(path):
        raise CheckpointError(f"{path}: not a whole checkpoint; it was cut off, or is another kind of file")
    try:
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=False)
    except (RuntimeError, pickle.UnpicklingError, ImportError, AttributeError, EOFError) as error:
        raise CheckpointError(f"{path}: can't be read ({' '.join(str(error).split())[:200]})") from error
    state = content.get("state") if isinstance(content, dict) else None
    if not isinstance(state, dict) or "model" not in state:
        raise CheckpointError(f"{path}: no checkpoint of Composer: it holds no state.model")
    return state


def is_whole(path: Path) -> bool:
    """Whether the file at `path` was written to its end, where a zip file has its directory."""
    return is_zipfile(path)


def saved_algorithms(state: dict[str, Any]) -> dict[str, str]:
    """Class name -> repr of the algorithms in the `state` of a checkpoint."""
    listed = state.get("algorithms") or []
    pairs = listed.items() if isinstance(listed, dict) else listed
    return {name: saved["repr"] for name, saved in pairs if "repr" in saved}
