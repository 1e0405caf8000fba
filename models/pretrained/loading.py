"""A pretrained model from a folder or the Hub, whole or not at all."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from cadenza.data import hub
from cadenza.models.errors import ModelError, in_short
from cadenza.models.quantized.config import is_library
from cadenza.models.saved import load
from cadenza.surgery.checkpoint import safe_weights

SHOWN = 3
CLASSIFIER = "ForSequenceClassification"
MOSAICBERT = "; this is MosaicBERT's published layout: read it by load_mosaicbert, write it by save"


def pretrained_model(auto: Any, name: str, fields: dict[str, Any], attention: str) -> PreTrainedModel:
    """The model called `name`, by transformers' class `auto`; `fields` replace those of its config.

    A new head may be missing, which transformers reports, and with it the base model's pooler, which a masked
    LM doesn't have. Weights of a head of another size are left out, as those of another number of classes.

    Raises:
        ModelError: there is no such model, or weights of its base model are missing.
    """
    local = is_local(name)
    source = str(Path(name).expanduser()) if is_folder(name) else name
    options = {"attn_implementation": attention, "local_files_only": local, **safe_weights(), **fields}
    if auto is AutoModelForSequenceClassification:
        options["ignore_mismatched_sizes"] = True
    try:
        model, info = _loaded(auto, source, output_loading_info=True, **options)
    except Exception as error:
        offline = local and not is_folder(name)
        reason = "it isn't cached, and the Hub doesn't answer" if offline else in_short(error)
        raise ModelError(f"model.pretrained: {name} can't be loaded ({reason})") from error
    _refuse_random_weights(name, model, info)
    return model


def _loaded(auto: Any, source: str, **options: Any) -> Any:
    """`from_pretrained`, but weights that bitsandbytes quantized become those of our technique.

    So adapters, reports and checkpoints are as after a quantization in the run itself.
    """
    folder = Path(source)
    if folder.is_dir():
        file = folder / "config.json"
        ours = file.is_file() and is_library(json.loads(file.read_text(encoding="utf-8")))
        return load(folder, auto, **options) if ours else auto.from_pretrained(source, **options)
    model, info = auto.from_pretrained(source, **options)
    if is_library(model.config.to_dict()):
        return load(snapshot_download(source, local_files_only=True), auto, **options)  # it is cached by now
    return model, info


def is_folder(name: str) -> bool:
    """Whether `name` is a folder here.

    Raises:
        ModelError: it is the path of a folder that isn't there.
    """
    folder = Path(name).expanduser().is_dir()
    if name.startswith((".", "/", "~")) and not folder:
        raise ModelError(f"model.pretrained: there is no folder {name}")
    return folder


def is_local(name: str) -> bool:
    """Whether the model is read without the Hub: from a folder, or from the cache."""
    return is_folder(name) or not hub.reachable()


def _refuse_random_weights(name: str, model: Any, info: dict[str, Any]) -> None:
    """Raise if weights of the base model were drawn at random, since the folder has none for them."""
    base = f"{model.base_model_prefix}."
    other_sizes = [key for key, *_ in info["mismatched_keys"]]
    pooler = f"{base}pooler." if type(model).__name__.endswith(CLASSIFIER) else ()
    missing = sorted(
        key
        for key in {*info["missing_keys"], *other_sizes}
        if key.startswith(base) and not (pooler and key.startswith(pooler))
    )
    if not missing:
        return
    more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
    published = any(".Wqkv." in key for key in info["unexpected_keys"])
    raise ModelError(
        f"model.pretrained: {name} lacks weights of {type(model).__name__} ({', '.join(missing[:SHOWN])}"
        f"{more}); it must be a whole model of this type{MOSAICBERT if published else ''}"
    )
