"""A quantized model in a folder that stock transformers loads, with bitsandbytes and without cadenza."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel

from cadenza.models.errors import ModelError, in_short
from cadenza.models.quantized.config import NAME, config_of, options_of
from cadenza.models.quantized.tensors import from_library, is_statistic, to_library
from cadenza.quantization.stored.formats import require_library
from cadenza.quantization.stored.quantized_linear import Quantized
from cadenza.surgery.retype import stock_class
from cadenza.surgery.saving import with_record

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


def write(model: PreTrainedModel, path: Path) -> None:
    """Write weights and config of `model` to `path`, as transformers writes a model that bitsandbytes holds.

    config.json also records the surgeries, which stock code ignores, so that `load` gives the same model.

    Raises:
        ModelError: stock code can't compute what `model` does. Nothing is written then.
    """
    settings = config_of(model)
    state: dict[str, Tensor] = model.state_dict()
    for layer_path, layer in model.named_modules():
        if isinstance(layer, Quantized):
            for name in layer.stored_names:
                del state[f"{layer_path}.{name}"]
            state |= {f"{layer_path}.{name}": tensor for name, tensor in to_library(layer).items()}
    # The stock method: that of a model after surgery would make the folder cadenza's own.
    stock_class(model).save_pretrained(model, path, state_dict=state)
    file = path / "config.json"
    fields = json.loads(file.read_text(encoding="utf-8"))
    fields = {**fields, "cadenza": with_record(fields, model)["cadenza"], "quantization_config": settings}
    file.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def recorded(fields: dict[str, Any], stock: type[PreTrainedModel]) -> dict[str, Any]:
    """The config `fields` of a folder that transformers wrote, with a record of our technique added."""
    known = {key: value for key, value in fields.items() if key != "quantization_config"}
    config = AutoConfig.for_model(**known)
    with torch.device("meta"):
        model = stock._from_config(config)
    options = options_of(model, fields["quantization_config"])
    record = {
        "class": f"{stock.__module__}:{stock.__qualname__}",
        "model_type": fields["model_type"],
        "surgeries": {NAME: options},
    }
    return {**fields, "cadenza": record}


def state_of(folder: Path) -> dict[str, Tensor]:
    """The weights in `folder` under the names of quantized layers here.

    Raises:
        ModelError: there are no safetensors, or those of a layer aren't whole.
    """
    require_library()
    found = _tensors(folder)
    layers: dict[str, dict[str, Tensor]] = {}
    for key in [key for key in found if is_statistic(key)]:
        path, _, name = key.partition(".weight.") if ".weight." in key else key.rpartition(".")
        name = f"weight.{name}" if ".weight." in key else name
        layers.setdefault(path, {})[name] = found.pop(key)
    for path, parts in layers.items():
        if f"{path}.weight" not in found:
            raise ModelError(f"load: {path} has {', '.join(sorted(parts))}, but no weight")
        _, stored = from_library(path, {"weight": found.pop(f"{path}.weight"), **parts})
        found |= {f"{path}.{name}": tensor for name, tensor in stored.items()}
    return found


def _tensors(folder: Path) -> dict[str, Tensor]:
    files = {SINGLE}
    if (folder / INDEX).is_file():
        files = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    found: dict[str, Tensor] = {}
    for name in sorted(files):
        try:
            with safe_open(folder / name, framework="pt") as file:
                found |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise ModelError(f"load: the weights in {folder} can't be read: {in_short(error)}") from error
    return found
