"""Reads the file of a Composer checkpoint, or says why it can't be read. No code in the file runs."""

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

# What Composer saves besides plain values and tensors: times, versions, the state of numpy's generator.
NUMPY_TYPES = [np.ndarray, np.dtype, type(np.dtype(np.uint32)), np.empty(0).__reduce__()[0]]
COMPOSER_TYPES = [timedelta, TorchVersion, *NUMPY_TYPES]
SAFE_TORCH = (2, 10)
PLAIN = (ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Attribute, ast.Load, ast.Constant, ast.UnaryOp)
PLAIN += (ast.List, ast.Tuple, ast.Set, ast.Dict, ast.UAdd, ast.USub, ast.Not)


def read(path: str | Path, trusted: bool = False) -> dict[str, Any]:
    """The `state` of a Composer checkpoint; its tensors stay on disk until they are used.

    No code in the file runs. `torch.serialization.add_safe_globals` admits classes that aren't Composer's.

    Args:
        trusted: read the file even where torch can't do so safely; see `unsafe_pickles`.

    Raises:
        CheckpointError: the file is missing, cut off, of another kind, or not safe to read.
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
        with torch.serialization.safe_globals(COMPOSER_TYPES):
            content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise CheckpointError(f"{path}: can't be read ({_reason(error)})") from error
    state = content.get("state") if isinstance(content, dict) else None
    if not isinstance(state, dict) or "model" not in state:
        raise CheckpointError(f"{path}: not a Composer checkpoint: it has no state.model")
    return state


def unsafe_pickles() -> str | None:
    """Why `torch.load` isn't safe here, even with `weights_only=True` (CVE-2026-24747); None if it is."""
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) >= SAFE_TORCH:
        return None
    return (
        f"torch {torch.__version__} can be made to run code by a file that it loads (CVE-2026-24747); "
        f"install torch {'.'.join(map(str, SAFE_TORCH))} or later"
    )


def safe_weights() -> dict[str, Any]:
    """Options of `from_pretrained`: safetensors only, where torch can't read other files safely."""
    return {"use_safetensors": True} if unsafe_pickles() else {}


def _reason(error: Exception) -> str:
    """Torch's message without its paragraphs of advice."""
    text = " ".join(str(error).split())
    return text.partition("WeightsUnpickler error: ")[2].partition(" Please")[0] or text[:200]


def is_whole(path: Path) -> bool:
    """Whether the file at `path` was written to its end, where a zip file has its directory."""
    return is_zipfile(path)


def saved_algorithms(state: dict[str, Any]) -> dict[str, str]:
    """The algorithms in the `state` of a checkpoint, class name -> repr.

    Raises:
        CheckpointError: a repr is more than one call with plain values. Composer would evaluate it.
    """
    listed = state.get("algorithms") or []
    pairs = listed.items() if isinstance(listed, dict) else listed
    found = {name: saved["repr"] for name, saved in pairs if "repr" in saved}
    for name, text in found.items():
        if not is_plain_call(text):
            raise CheckpointError(f"algorithm {name} of the checkpoint is code, not options: {text[:200]!r}")
    return found


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """Class name and options of a surgery, from its repr in a checkpoint, such as `GLU(variant='geglu')`.

    Raises:
        ValueError: the text isn't a call with plain values.
    """
    try:
        call: Any = ast.parse(text, mode="eval").body
        return call.func.id, {word.arg: ast.literal_eval(word.value) for word in call.keywords}
    except (SyntaxError, AttributeError, ValueError) as error:
        raise ValueError(f"{text!r} is not a surgery with plain options") from error


def is_plain_call(text: str) -> bool:
    """Whether Composer can safely evaluate `algorithms.{text}`, as it does when it loads a checkpoint.

    True if the text is a single call with plain values, or if it can't be evaluated at all.
    """
    try:
        tree = ast.parse(f"algorithms.{text}", mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return True
    nodes = list(ast.walk(tree))
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    private = any(isinstance(node, ast.Attribute) and node.attr.startswith("_") for node in nodes)
    return all(isinstance(node, PLAIN) for node in nodes) and calls in ([], [tree.body]) and not private
