"""A pretrained model from a folder or the Hub, whole or not at all."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from cadenza.data import hub
from cadenza.models.errors import ModelError, in_short
from cadenza.surgery.checkpoint import safe_weights

SHOWN = 3
MOSAICBERT = "; this is MosaicBERT's published layout: read it by load_mosaicbert, write it by save"


def pretrained_model(auto: Any, name: str, fields: dict[str, Any], attention: str) -> PreTrainedModel:
    """The model called `name`, by transformers' class `auto`; `fields` replace those of its config.

    A new head may be missing, which transformers reports.

    Raises:
        ModelError: there is no such model, or weights of its base model are missing.
    """
    local = is_local(name)
    source = str(Path(name).expanduser()) if is_folder(name) else name
    options = {"attn_implementation": attention, "local_files_only": local, **safe_weights(), **fields}
    try:
        model, info = auto.from_pretrained(source, output_loading_info=True, **options)
    except Exception as error:
        offline = local and not is_folder(name)
        reason = "it isn't cached, and the Hub doesn't answer" if offline else in_short(error)
        raise ModelError(f"model.pretrained: {name} can't be loaded ({reason})") from error
    _refuse_random_weights(name, model, info)
    return model


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
    missing = sorted(key for key in info["missing_keys"] if key.startswith(f"{model.base_model_prefix}."))
    if not missing:
        return
    more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
    published = any(".Wqkv." in key for key in info["unexpected_keys"])
    raise ModelError(
        f"model.pretrained: {name} lacks weights of {type(model).__name__} ({', '.join(missing[:SHOWN])}"
        f"{more}); it must be a whole model of this type{MOSAICBERT if published else ''}"
    )
