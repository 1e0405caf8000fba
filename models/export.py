"""A Composer checkpoint as a Hugging Face folder."""

import json
import re
from pathlib import Path
from typing import Any

from cadenza.models.errors import ModelError
from cadenza.models.saved import SURGERIES, build_stock, save
from cadenza.surgery.checkpoint import parse, read, saved_algorithms
from cadenza.surgery.errors import CheckpointError

TOKENIZER_FILE = re.compile(r"\w[\w.-]*\.(json|txt|model|jinja)")
MODEL_FILES = ("config.json", "generation_config.json", "model.safetensors.index.json")


def export(checkpoint: str | Path, folder: str | Path, trusted: bool = False) -> Path:
    """Write the model in a Composer checkpoint to `folder`, as `save` does, with its tokenizer.

    Args:
        trusted: read the file even with torch before 2.10, where a file can make torch run code.

    Raises:
        CheckpointError: the checkpoint isn't whole, is not of a Hugging Face model, holds LoRA adapters, or
            has files in its tokenizer that no tokenizer has. Nothing is written then.
        ModelError: `folder` isn't empty.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelError(f"export: {folder} isn't empty; name another folder, or remove it")
    state = read(checkpoint, trusted)
    model, files = model_of(state, str(checkpoint)), tokenizer_files(state, str(checkpoint))
    (time,) = state["timestamp"].values()
    facts = {"batches trained on": f"{time['batch']:,}", "tokens trained on": f"{time['token']:,}"}
    save(model, folder, facts=facts)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def tokenizer_files(state: dict[str, Any], name: str) -> dict[str, bytes]:
    """File name -> content of the tokenizer in the `state` of a checkpoint.

    Raises:
        CheckpointError: no tokenizer has a file of this name. It could lead out of the folder, replace a file
            of the model, or contain code.
    """
    files: dict[str, bytes] = {}
    for key, entry in (state["integrations"]["huggingface"].get("tokenizer") or {}).items():
        extension = entry.get("file_extension", "")
        file = key if key.endswith(extension) else key + extension  # Composer once left it out
        if not TOKENIZER_FILE.fullmatch(file) or file in MODEL_FILES:
            raise CheckpointError(f"{name}: {file!r} is not the name of a tokenizer file")
        files[file] = _bytes(file, entry["content"])
    return files


def model_of(state: dict[str, Any], name: str) -> Any:
    """The model in the `state` of the checkpoint `name`: built, changed by its surgeries, and filled."""
    entry = (state.get("integrations") or {}).get("huggingface", {}).get("model", {})
    if "peft_config" in entry:
        raise CheckpointError(
            f"{name}: it holds LoRA adapters, not a whole model; resume the run with load_path={name}, and "
            "call save_pretrained(folder) of peft's model, which is trainer.state.model.model"
        )
    saved = entry.get("config")
    if saved is None:
        raise CheckpointError(f"{name}: there is no Hugging Face model in it")
    listed = (parse(text) for key, text in saved_algorithms(state).items() if key in SURGERIES)
    module, _, stock = saved["class"].rpartition(".")
    record = {"model_type": saved["content"]["model_type"], "surgeries": dict(listed)}
    record["class"] = f"{module}:{stock}"
    model = build_stock({**saved["content"], "architectures": [stock], "cadenza": record})
    weights = {key.removeprefix("model."): tensor for key, tensor in state["model"].items()}
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"{name}: its weights don't fit its model: {error}") from error
    return model


def _bytes(file: str, content: Any) -> bytes:
    """The file as bytes; Composer holds .json parsed, .txt as a list of lines, .model as bytes."""
    if file.endswith(".json"):
        content = json.dumps(content, indent=2)
    elif isinstance(content, list):
        content = "\n".join(content)
    return content if isinstance(content, bytes) else content.encode()
