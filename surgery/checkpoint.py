"""A Composer checkpoint as a file: read, or refused in words."""

import pickle
from datetime import timedelta
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
import torch
from torch.torch_version import TorchVersion

from cadenza.surgery.errors import CheckpointError

# What Composer puts into a checkpoint beside plain values and tensors: times, versions, numpy's generator.
COMPOSERS = [
    timedelta,
    TorchVersion,
    np.ndarray,
    np.dtype,
    type(np.dtype(np.uint32)),
    np.empty(0).__reduce__()[0],
]


def read(path: str | Path) -> dict[str, Any]:
    """The `state` of a Composer checkpoint; its tensors stay on the disk until they are used.

    Nothing in it is run: name a class that isn't Composer's to `torch.serialization.add_safe_globals`.

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
        with torch.serialization.safe_globals(COMPOSERS):
            content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise CheckpointError(f"{path}: can't be read ({_reason(error)})") from error
    state = content.get("state") if isinstance(content, dict) else None
    if not isinstance(state, dict) or "model" not in state:
        raise CheckpointError(f"{path}: no checkpoint of Composer: it holds no state.model")
    return state


def _reason(error: Exception) -> str:
    """Torch's, without its paragraphs of advice."""
    text = " ".join(str(error).split())
    return text.partition("WeightsUnpickler error: ")[2].partition(" Please")[0] or text[:200]


def is_whole(path: Path) -> bool:
    """Whether the file at `path` was written to its end, where a zip file has its directory."""
    return is_zipfile(path)


def saved_algorithms(state: dict[str, Any]) -> dict[str, str]:
    """Class name -> repr of the algorithms in the `state` of a checkpoint."""
    listed = state.get("algorithms") or []
    pairs = listed.items() if isinstance(listed, dict) else listed
    return {name: saved["repr"] for name, saved in pairs if "repr" in saved}
