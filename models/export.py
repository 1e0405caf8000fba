"""A Composer checkpoint as a folder: a Hugging Face model, adapters, or a ResNet."""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from cadenza.data.places import home, why_unwritable
from cadenza.models.adapters import is_of_adapters, merged, write_adapter
from cadenza.models.errors import ModelError
from cadenza.models.image_folder import is_resnet, network_in, write_resnet
from cadenza.models.saved import SURGERIES, build_stock, check, save
from cadenza.surgery.checkpoint import parse, read, saved_algorithms
from cadenza.surgery.errors import CheckpointError

TOKENIZER_FILE = re.compile(r"\w[\w.-]*\.(json|txt|model|jinja)")
MODEL_FILES = ("config.json", "generation_config.json", "model.safetensors.index.json")


def export(
    checkpoint: str | Path,
    folder: str | Path,
    trusted: bool = False,
    merge: bool = False,
    onto: str | None = None,
    format: str | None = None,
) -> Path:
    """Write the model in a Composer checkpoint to `folder`, as `save` does, with its tokenizer.

    Of a LoRA run that is the adapter, as peft writes it. Of a recipe for images it is a network for
    `load_resnet`.

    Args:
        trusted: read the file even with torch before 2.10, where a file can make torch run code.
        merge: of a LoRA run, write the whole model, with the adapters added to its weights.
        onto: the weights that they are added to: "full", "dequantized" or "quantized", see
            `cadenza.models.adapters.merged`. None: "quantized" with a `format`, else "full".
        format: that of `save`: "bitsandbytes", for a model with quantized weights.

    Raises:
        CheckpointError: the checkpoint isn't whole, is of another kind of model, has no adapters to merge or
            can't merge them, or has files in its tokenizer that no tokenizer has. Nothing is written then.
        ModelError: `folder` isn't empty, nothing can be written to it, or the model isn't one of `format`.
    """
    checkpoint, folder = home(checkpoint), home(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelError(f"export: {folder} isn't empty; name another folder, or remove it")
    state, name = read(checkpoint, trusted), str(checkpoint)
    if merge and not is_of_adapters(state):
        raise CheckpointError(f"{name}: it has no adapters to merge; export it without --merge")
    if onto is not None and not merge:
        raise ModelError(f"export: --onto {onto} says where adapters are merged; add --merge")
    merge_onto = (onto or ("quantized" if format else "full")) if merge else None
    write, files = _writer(state, checkpoint, merge_onto, format), tokenizer_files(state, name)
    if why := why_unwritable(folder):
        raise ModelError(f"export: {folder} can't be written to ({why}); name another folder")
    write(folder)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    return folder


def _writer(
    state: dict[str, Any], checkpoint: Path, onto: str | None, format: str | None
) -> Callable[[Path], object]:
    """What writes the model in `state` to a folder; by then all is checked and built."""
    if format and (is_resnet(state) or (is_of_adapters(state) and not onto)):
        what = "a ResNet" if is_resnet(state) else "adapters, which --merge adds to a whole model"
        raise ModelError(f"export: {checkpoint} holds {what}; --format is for language models")
    if is_resnet(state):
        return partial(write_resnet, *network_in(state, checkpoint))
    if is_of_adapters(state) and not onto:
        return partial(write_adapter, state)
    model, facts = _whole_model(state, str(checkpoint), onto)
    check(model, format)
    return lambda folder: save(model, folder, facts=facts, format=format)


def _whole_model(state: dict[str, Any], name: str, onto: str | None) -> tuple[Any, dict[str, str]]:
    """The model in `state`, with adapters merged `onto` its weights, and lines of its card."""
    if onto is None:
        return model_of(state, name), _facts(state)
    model, report = merged(state, name, onto)
    return model, _facts(state) | ({"adapters": str(report)} if report else {})


def _facts(state: dict[str, Any]) -> dict[str, str]:
    """Lines of the model card."""
    (time,) = state["timestamp"].values()
    return {"batches trained on": f"{time['batch']:,}", "tokens trained on": f"{time['token']:,}"}


def tokenizer_files(state: dict[str, Any], name: str) -> dict[str, bytes]:
    """File name -> content of the tokenizer in the `state` of a checkpoint.

    Raises:
        CheckpointError: no tokenizer has a file of this name. It could lead out of the folder, replace a file
            of the model, or contain code.
    """
    files: dict[str, bytes] = {}
    kept = (state.get("integrations") or {}).get("huggingface") or {}
    for key, entry in (kept.get("tokenizer") or {}).items():
        extension = entry.get("file_extension", "")
        file = key if key.endswith(extension) else key + extension  # Composer once left it out
        if not TOKENIZER_FILE.fullmatch(file) or file in MODEL_FILES:
            raise CheckpointError(f"{name}: {file!r} is not the name of a tokenizer file")
        files[file] = _bytes(file, entry["content"])
    return files


def model_of(state: dict[str, Any], name: str) -> Any:
    """The model in the `state` of the checkpoint `name`: built, changed by its surgeries, and filled."""
    entry = (state.get("integrations") or {}).get("huggingface", {}).get("model", {})
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
