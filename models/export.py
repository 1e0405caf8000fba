"""A Composer checkpoint as a Hugging Face folder."""

import json
from pathlib import Path
from typing import Any

from cadenza.models.errors import ModelError
from cadenza.models.saved import SURGERIES, build_stock, save
from cadenza.surgery.checkpoint import read, saved_algorithms
from cadenza.surgery.errors import CheckpointError
from cadenza.surgery.history import parse


def export(checkpoint: str | Path, folder: str | Path) -> Path:
    """Write the model in a Composer checkpoint to `folder`, as `save` does, with its tokenizer.

    Raises:
        CheckpointError: no whole checkpoint, or none of a Hugging Face model.
        ModelError: `folder` holds something already.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelError(f"export: {folder} isn't empty; name another folder, or remove it")
    state = read(checkpoint)
    model = model_of(state, str(checkpoint))
    save(model, folder, facts=_facts(state))
    for name, entry in (state["integrations"]["huggingface"].get("tokenizer") or {}).items():
        (folder / name).write_text(_text(entry["content"]), encoding="utf-8")
    return folder


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


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(content) if isinstance(content, list) else json.dumps(content, indent=2)
