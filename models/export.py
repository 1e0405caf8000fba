"""A Composer checkpoint as a Hugging Face folder."""

import json
import re
from pathlib import Path
from typing import Any

from cadenza.models.errors import ModelError
from cadenza.models.saved import SURGERIES, build_stock, save
from cadenza.surgery.checkpoint import read, saved_algorithms
from cadenza.surgery.errors import CheckpointError
from cadenza.surgery.history import parse

TOKENIZER_FILE = re.compile(r"\w[\w.-]*\.(json|txt|model|jinja)")
MODEL_FILES = ("config.json", "generation_config.json", "model.safetensors.index.json")


def export(checkpoint: str | Path, folder: str | Path, trusted: bool = False) -> Path:
    """Write the model in a Composer checkpoint to `folder`, as `save` does, with its tokenizer.

    Args:
        trusted: read the file although torch, before 2.10, can be made to run code by it.

    Raises:
        CheckpointError: no whole checkpoint, none of a Hugging Face model, or one that holds files that
            aren't a tokenizer's. Nothing is written then.
        ModelError: `folder` holds something already.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelError(f"export: {folder} isn't empty; name another folder, or remove it")
    state = read(checkpoint, trusted)
    model, files = model_of(state, str(checkpoint)), tokenizer_files(state, str(checkpoint))
    save(model, folder, facts=_facts(state))
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def tokenizer_files(state: dict[str, Any], name: str) -> dict[str, bytes]:
    """File name -> content of the tokenizer in the `state` of a checkpoint.

    Raises:
        CheckpointError: a name that isn't one of a tokenizer's files, and could lead out of a folder, replace
            a file of the model, or bring code along.
    """
    files: dict[str, bytes] = {}
    for key, entry in (state["integrations"]["huggingface"].get("tokenizer") or {}).items():
        kind = entry.get("file_extension", "")
        file = key if key.endswith(kind) else key + kind  # Composer once kept names without it
        if not TOKENIZER_FILE.fullmatch(file) or file in MODEL_FILES:
            raise CheckpointError(f"{name}: its tokenizer has a file {file!r}, which is not a tokenizer's")
        files[file] = _bytes(file, entry["content"])
    return files


def model_of(state: dict[str, Any], name: str) -> Any:
    """The model in the `state` of a checkpoint, its surgeries done anew."""
    saved = (state.get("integrations") or {}).get("huggingface", {}).get("model", {}).get("config")
    if saved is None:
        raise CheckpointError(f"{name}: there is no Hugging Face model in it")
    listed = (parse(text) for key, text in saved_algorithms(state).items() if key in SURGERIES)
    record = {"model_type": saved["content"]["model_type"], "surgeries": dict(listed)}
    stock = saved["class"].rpartition(".")[2]
    model = build_stock({**saved["content"], "architectures": [stock], "cadenza": record})
    weights = {key.removeprefix("model."): tensor for key, tensor in state["model"].items()}
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"{name}: the weights aren't those of its model: {error}") from error
    return model


def _facts(state: dict[str, Any]) -> dict[str, Any]:
    """What the checkpoint says of the training."""
    (time,) = state["timestamp"].values()
    return {"batches trained on": f"{time['batch']:,}", "tokens trained on": f"{time['token']:,}"}


def _bytes(file: str, content: Any) -> bytes:
    """What Composer made of a file, as it was: a .json parsed, the lines of a .txt, a .model's bytes."""
    if file.endswith(".json"):
        content = json.dumps(content, indent=2)
    elif isinstance(content, list):
        content = "\n".join(content)
    return content if isinstance(content, bytes) else content.encode()
