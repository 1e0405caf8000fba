"""The files of a published folder: weights and config, read as data."""

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cadenza.models.errors import ModelError
from cadenza.surgery.checkpoint import unsafe_pickles

SAFE, PICKLED = "model.safetensors", "pytorch_model.bin"


def read_weights(caller: str, folder: Path, trusted: bool) -> dict[str, Tensor]:
    """The tensors in `folder` by name, of safetensors if there are any.

    Args:
        caller: the function that errors name.
        trusted: read a pickle even with torch before 2.10.

    Raises:
        ModelError: there is no such file, or it can't be read.
    """
    files = [path for name in (SAFE, PICKLED) if (path := folder / name).is_file()]
    if not files:
        raise ModelError(f"{caller}: {folder} holds neither {PICKLED} nor {SAFE}")
    if files[0].name == PICKLED and not trusted and (reason := unsafe_pickles()):
        raise ModelError(f"{caller}: {files[0]}: {reason}, or pass trusted=True")
    try:
        if files[0].name == SAFE:
            return load_file(files[0])
        return torch.load(files[0], map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, pickle.UnpicklingError, EOFError, SafetensorError) as error:
        raise ModelError(f"{caller}: {files[0]} can't be read: {error}") from error


def read_config(caller: str, folder: Path) -> dict[str, Any]:
    """The fields of `config.json` in `folder`.

    Raises:
        ModelError: there is no such file, or it isn't valid JSON.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise ModelError(f"{caller}: there is no {file}; it is published beside the weights")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{caller}: {file} is not valid JSON ({error})") from error
