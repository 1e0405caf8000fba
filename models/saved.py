"""Models with surgeries behind them, in folders: saved, loaded, exported from a checkpoint."""

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from composer.algorithms.warnings import NoEffectWarning
from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from cadenza.algorithms import REGISTRY
from cadenza.models.card import card
from cadenza.models.errors import ModelError
from cadenza.models.stock import in_short
from cadenza.surgery import NoEffect, Surgery, SurgeryError, in_order
from cadenza.surgery.checkpoint import safe_weights
from cadenza.surgery.retype import retype
from cadenza.surgery.saving import outermost

SURGERIES = {cls.__name__: cls for cls in REGISTRY.values() if issubclass(cls, Surgery)}


def save(model: Any, folder: str | Path, tokenizer: Any = None, facts: dict[str, Any] | None = None) -> Path:
    """Write `model` to `folder` as Hugging Face has it: config.json, safetensors, a model card.

    config.json records the surgeries with their options. Where stock code would compute something else from
    the weights, `AutoModel` needs cadenza to load the folder: by `import cadenza.models` before, or by
    `trust_remote_code=True`, and without cadenza it says what to install.

    Args:
        model: a Hugging Face model, or a module such as Composer's wrapper that holds one.
        folder: made if it isn't there.
        tokenizer: written beside the model.
        facts: lines of the model card, such as {"batches": 900}.

    Raises:
        ModelError: no Hugging Face model, or more than one, in `model`.
    """
    hosts = outermost(model)
    if len(hosts) != 1:
        raise ModelError(f"save: {type(model).__name__} holds {len(hosts)} Hugging Face models, not one")
    path = Path(folder)
    hosts[0].save_pretrained(path)
    if tokenizer is not None:
        tokenizer.save_pretrained(path)
    (path / "README.md").write_text(card(hosts[0], path.name, facts or {}), encoding="utf-8")
    return path


def load(folder: str | Path, auto: Any = None, **options: Any) -> Any:
    """The model that `save` or its own `save_pretrained` wrote to `folder`, surgeries done anew.

    Args:
        folder: a local folder.
        auto: a transformers `AutoModelFor...`: the encoder with another head, e.g.
            `AutoModelForSequenceClassification`, whose new weights transformers draws and names in a warning.
            None is the class that was saved.
        options: of `from_pretrained` (`dtype`, `attn_implementation`, `output_loading_info`, ...) or fields
            of the config (`num_labels`, ...).

    Raises:
        ModelError: no such folder, no record of surgeries in it, or one that this version doesn't know.
    """
    return load_with(_fields(Path(folder)), folder, auto, **options)


def build_stock(fields: dict[str, Any]) -> Any:
    """A model by its config with a record of surgeries; its weights are new."""
    surgeries = surgeries_of(fields["cadenza"]["surgeries"])
    config, _ = _stock_config(fields, fields["cadenza"], surgeries, {})
    stock = _stock_class(fields)
    model = _rebuilt(stock, surgeries, soft=False)(config)
    retype(model, stock)
    return model


def load_with(fields: dict[str, Any], folder: str | Path, auto: Any = None, **options: Any) -> Any:
    """`load` with another config than the folder's, as a mapping."""
    record = fields["cadenza"]
    surgeries = surgeries_of(record["surgeries"])
    config, options = _stock_config(fields, record, surgeries, options)
    saved = _stock_class(fields)
    stock = saved if auto is None else _class_of(auto, config)
    if stock is not saved:
        new = _new_layers(stock, saved, config)
        surgeries = [surgery.sparing(new) for surgery in surgeries]
    rebuilt = _rebuilt(stock, surgeries, soft=stock is not saved)
    try:
        loaded = rebuilt.from_pretrained(folder, config=config, **{**safe_weights(), **options})
    except (OSError, SafetensorError) as error:
        raise ModelError(f"load: the weights in {folder} can't be read: {in_short(error)}") from error
    model = loaded[0] if isinstance(loaded, tuple) else loaded
    retype(model, stock)
    for surgery in surgeries:
        surgery.loaded(model)
    return loaded


def _fields(path: Path) -> dict[str, Any]:
    """`config.json`, which must have a record."""
    file = path / "config.json"
    if not file.is_file():
        raise ModelError(f"load: there is no {file}; name a folder that a model was saved to")
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"load: {file} is not valid JSON ({error})") from error
    if "cadenza" not in fields:
        raise ModelError(f"load: {file} records no surgery; it's a stock model, for transformers to load")
    return fields


def surgeries_of(recorded: dict[str, dict[str, Any]]) -> list[Surgery]:
    """The surgeries of a record, class names with options, in canonical order."""
    made = []
    for name, options in recorded.items():
        if name not in SURGERIES:
            raise ModelError(f"load: the model has {name} behind it, which this version doesn't know")
        try:
            made.append(SURGERIES[name](**options))
        except (TypeError, SurgeryError) as error:
            raise ModelError(f"load: the model has {name} behind it with {options}: {error}") from error
    return [surgery for surgery in in_order(made) if isinstance(surgery, Surgery)]


def _stock_config(
    fields: dict[str, Any], record: dict[str, Any], surgeries: list[Surgery], options: dict[str, Any]
) -> tuple[PreTrainedConfig, dict[str, Any]]:
    """The config before any surgery, with what of `options` is a field of it; and the other options."""
    for surgery in reversed(surgeries):
        fields = surgery.stock_config(fields)
    fields = {k: v for k, v in fields.items() if k not in ("auto_map", "cadenza", "model_type")}
    known = type(AutoConfig.for_model(record["model_type"]))
    made: Any = known.from_dict(fields, return_unused_kwargs=True, **options)
    return made


def _stock_class(fields: dict[str, Any]) -> type[PreTrainedModel]:
    """The class of transformers that the config names."""
    (name,) = fields["architectures"]
    found = getattr(transformers, name, None)
    if not (isinstance(found, type) and issubclass(found, PreTrainedModel)):
        raise ModelError(f"load: {name!r} is not a model of transformers {transformers.__version__}")
    return found


def _class_of(auto: Any, config: PreTrainedConfig) -> type[PreTrainedModel]:
    if type(config) not in auto._model_mapping:
        raise ModelError(f"load: transformers has no {auto.__name__} for {config.model_type}")
    return auto._model_mapping[type(config)]


def _new_layers(stock: Any, saved: Any, config: PreTrainedConfig) -> list[str]:
    """The modules of `stock` that `saved` has no weights for."""
    with torch.device("meta"):
        models = [cls(copy.deepcopy(config)) for cls in (stock, saved)]
    keys = [{key.removeprefix(f"{m.base_model_prefix}."): key for key in m.state_dict()} for m in models]
    return sorted({keys[0][key].rpartition(".")[0] for key in keys[0].keys() - keys[1].keys()})


def _rebuilt(stock: Any, surgeries: list[Surgery], soft: bool) -> Any:
    """`stock` with surgeries at the end of `__init__`, so that `from_pretrained` fills their result."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        stock.__init__(self, *args, **kwargs)
        _tie(self)
        for surgery in surgeries:
            _operate(surgery, self, soft)

    body = {"__init__": __init__, "__module__": stock.__module__, "__qualname__": stock.__qualname__}
    return type(stock.__name__, (stock,), body)


def _tie(model: Any) -> None:
    """Tie now what transformers ties after loading: surgeries keep ties that they see."""
    for target, source in model.all_tied_weights_keys.items():
        owner, _, name = target.rpartition(".")
        model.get_submodule(owner)._parameters[name] = model.get_parameter(source)


def _operate(surgery: Surgery, model: Any, soft: bool) -> None:
    """Under another head, one that changes no output may find nothing to do."""
    try:
        surgery.operate(model)
    except NoEffect as error:
        if not (soft and surgery.keeps_outputs):
            raise
        warnings.warn(NoEffectWarning(str(error)), stacklevel=2)
