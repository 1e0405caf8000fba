"""A Composer checkpoint as a file: read, or refused in words. Nothing in it is run."""

import ast
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

SAFE_TORCH = (2, 10)
PLAIN = (ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Attribute, ast.Load, ast.Constant, ast.UnaryOp)
PLAIN += (ast.List, ast.Tuple, ast.Set, ast.Dict, ast.UAdd, ast.USub, ast.Not)


def read(path: str | Path, trusted: bool = False) -> dict[str, Any]:
    """The `state` of a Composer checkpoint; its tensors stay on the disk until they are used.

    Nothing in it is run: name a class that isn't Composer's to `torch.serialization.add_safe_globals`.

    Args:
        trusted: whether to read it where torch can't do so safely; see `unsafe_pickles`.

    Raises:
        CheckpointError: no such file, not all of it, something else, or not safe to read.
    """
    path = Path(path)
    if not path.is_file():
        there = sorted(str(p) for p in path.parent.glob("*.pt")) if path.parent.is_dir() else []
        hint = f"; there are {', '.join(there[-3:])}" if there else ""
        raise CheckpointError(f"{path}: there is no such checkpoint{hint}")
    if not is_whole(path):
        raise CheckpointError(f"{path}: not a whole checkpoint; it was cut off, or is another kind of file")
    if not trusted and (reason := unsafe_pickles()):
        raise CheckpointError(f"{path}: {reason}, or pass trusted=True (--trust)")
    try:
        with torch.serialization.safe_globals(COMPOSERS):
            content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise CheckpointError(f"{path}: can't be read ({_reason(error)})") from error
    state = content.get("state") if isinstance(content, dict) else None
    if not isinstance(state, dict) or "model" not in state:
        raise CheckpointError(f"{path}: no checkpoint of Composer: it holds no state.model")
    return state


def unsafe_pickles() -> str | None:
    """Why `torch.load` isn't safe here, even with `weights_only=True`; None: it is (CVE-2026-24747)."""
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) >= SAFE_TORCH:
        return None
    return (
        f"torch {torch.__version__} can be made to run code by a file that it loads (CVE-2026-24747); "
        f"install torch {'.'.join(map(str, SAFE_TORCH))} or later"
    )


def safe_weights() -> dict[str, Any]:
    """Options of `from_pretrained`: safetensors alone where torch can't read other files safely."""
    return {"use_safetensors": True} if unsafe_pickles() else {}


def _reason(error: Exception) -> str:
    """Torch's, without its paragraphs of advice."""
    text = " ".join(str(error).split())
    return text.partition("WeightsUnpickler error: ")[2].partition(" Please")[0] or text[:200]


def is_whole(path: Path) -> bool:
    """Whether the file at `path` was written to its end, where a zip file has its directory."""
    return is_zipfile(path)


def saved_algorithms(state: dict[str, Any]) -> dict[str, str]:
    """Class name -> repr of the algorithms in the `state` of a checkpoint.

    Raises:
        CheckpointError: a repr that is more than one call with plain values, which Composer would run.
    """
    listed = state.get("algorithms") or []
    pairs = listed.items() if isinstance(listed, dict) else listed
    found = {name: saved["repr"] for name, saved in pairs if "repr" in saved}
    for name, text in found.items():
        if not is_plain_call(text):
            raise CheckpointError(f"algorithm {name} of the checkpoint is code, not options: {text[:200]!r}")
    return found


def is_plain_call(text: str) -> bool:
    """Whether it is safe that Composer evaluates `algorithms.{text}` when it loads a checkpoint.

    It is if that calls one class with plain values, or can't be evaluated at all.
    """
    try:
        tree = ast.parse(f"algorithms.{text}", mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return True
    nodes = list(ast.walk(tree))
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    private = any(isinstance(node, ast.Attribute) and node.attr.startswith("_") for node in nodes)
    return all(isinstance(node, PLAIN) for node in nodes) and calls in ([], [tree.body]) and not private
