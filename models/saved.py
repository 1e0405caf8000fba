"""Models after surgery in folders: saved and loaded.

1. `save` lets transformers write weights and config. The engine adds a record of the surgeries to the config.
2. `load` takes the surgeries from the record, and takes back what they changed in the config.
3. It makes a class whose `__init__` builds the stock model and applies the surgeries.
4. `from_pretrained` of that class fills the model, which then gets its stock class back.

The obvious way, surgeries on a loaded stock model, would need weights in the stock layout, which don't exist
after `glu` or a quantization.
"""

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from composer.algorithms.warnings import NoEffectWarning
from safetensors import SafetensorError
from transformers import AutoConfig, GenerationConfig, PreTrainedConfig

from cadenza.algorithms import REGISTRY, VocabPadding
from cadenza.attention.technique import AttentionSurgery
from cadenza.models.card import card
from cadenza.models.classes import class_by, saved_class
from cadenza.models.errors import ModelError, in_short
from cadenza.models.quantized.config import config_of, is_library
from cadenza.models.quantized.folder import recorded, state_of, write
from cadenza.surgery import NoEffect, Surgery, SurgeryError, in_order
from cadenza.surgery.checkpoint import safe_weights
from cadenza.surgery.retype import retype
from cadenza.surgery.saving import outermost, refuse_adapters

SHOWN = 4
FORMATS = (None, "bitsandbytes")
SURGERIES = {cls.__name__: cls for cls in REGISTRY.values() if issubclass(cls, Surgery)}


def save(
    model: Any,
    folder: str | Path,
    tokenizer: Any = None,
    facts: dict[str, Any] | None = None,
    format: str | None = None,
) -> Path:
    """Write `model` to `folder` in Hugging Face's format: config.json, safetensors, a model card.

    config.json records the surgeries with their options. If stock code would compute other outputs from the
    weights, `AutoModel` needs cadenza to load the folder, by `import cadenza.models` or by
    `trust_remote_code=True`. Without cadenza its error names what to install.

    Args:
        model: a Hugging Face model, or a module that holds one, such as Composer's wrapper.
        folder: created if it doesn't exist.
        tokenizer: written beside the model.
        facts: lines of the model card, such as {"batches": 900}.
        format: "bitsandbytes": weights in nf4, fp4 (both also with double quantization) or int8 in the layout
            of transformers itself, which loads the folder without cadenza.

    Raises:
        ModelError: no Hugging Face model, or more than one, in `model`; an unknown format, or one in which
            stock code can't compute what `model` does. Nothing is written then.
        SurgeryError: `model` holds adapters of peft.
    """
    found = outermost(model)
    if len(found) != 1:
        raise ModelError(f"save: {type(model).__name__} holds {len(found)} Hugging Face models, not one")
    check(found[0], format)
    refuse_adapters(found[0])
    path = Path(folder)
    write(found[0], path) if format else found[0].save_pretrained(path)
    if tokenizer is not None:
        tokenizer.save_pretrained(path)
    (path / "README.md").write_text(card(found[0], path.name, facts or {}, format), encoding="utf-8")
    return path


def check(model: Any, format: str | None) -> None:
    """Raise `ModelError` if `model` can't be written in `format`."""
    if format not in FORMATS:
        raise ModelError(f"save: format is {format!r}; it must be {FORMATS[1]!r} or None")
    if format:
        config_of(model)


def load(folder: str | Path, auto: Any = None, **options: Any) -> Any:
    """The model after surgery that `save`, or its own `save_pretrained`, wrote to `folder`.

    A folder in which transformers wrote a model that bitsandbytes had quantized is such a folder, too: the
    model has `post_training_quantization`, with the same codes.

    Args:
        folder: a local folder.
        auto: a transformers `AutoModelFor...`: load the encoder with another head, e.g.
            `AutoModelForSequenceClassification`. Its new weights are random; a warning of transformers names
            them. None: the class that was saved.
        options: of `from_pretrained` (`dtype`, `attn_implementation`, `output_loading_info`, ...) or fields
            of the config (`num_labels`, ...).

    Raises:
        ModelError: no such folder, no record of surgeries in it, a record that this version can't read, a
            class that isn't imported, or weights that aren't those of the model.
    """
    return load_with(_fields(Path(folder)), folder, auto, **options)


def build_stock(fields: dict[str, Any]) -> Any:
    """A model after surgery with new weights; `fields` are its config with the record of surgeries."""
    surgeries = surgeries_of(fields["cadenza"]["surgeries"])
    config, _ = _stock_config(fields, surgeries, {})
    stock = saved_class(fields)
    model = _rebuilt(stock, surgeries, soft=True)(config)
    retype(model, stock)
    return model


def config_before(fields: dict[str, Any], others: dict[str, Any]) -> Any:
    """The config before any surgery, of `fields` with the record; `others` replace fields of it."""
    return _stock_config(fields, surgeries_of(fields["cadenza"]["surgeries"]), others)[0]


def load_with(fields: dict[str, Any], folder: str | Path, auto: Any = None, **options: Any) -> Any:
    """`load` with `fields` in place of the folder's config."""
    surgeries = surgeries_of(fields["cadenza"]["surgeries"])
    with_info = options.pop("output_loading_info", False)
    dtypes = {key: options.pop(key) for key in ("dtype", "torch_dtype") if key in options}  # may be "auto"
    config, options = _stock_config(fields, surgeries, options)
    saved = saved_class(fields)
    stock = saved if auto is None else class_by(auto, config, saved)
    new = [] if stock is saved else _new_layers(stock, saved, config)
    surgeries = [surgery.excluding(new) for surgery in surgeries] if new else surgeries
    rebuilt = _rebuilt(stock, surgeries, soft=stock is not saved)
    options = {**safe_weights(), **dtypes, **options, "config": config}
    fill = _filled_from_library if is_library(fields) else _filled
    model, info = fill(rebuilt, folder, **options)
    _refuse_other_keys(info, new, same=stock is saved)
    retype(model, stock)
    for surgery in surgeries:
        surgery.loaded(model)
    return (model, info) if with_info else model


def _filled(rebuilt: Any, folder: str | Path, **options: Any) -> Any:
    """The model with the weights in `folder`, and what transformers says of them."""
    try:
        return rebuilt.from_pretrained(folder, output_loading_info=True, **options)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"load: the weights in {folder} can't be read: {in_short(error)}") from error


def _filled_from_library(rebuilt: Any, folder: str | Path, **options: Any) -> Any:
    """As `_filled`, with the weights of a folder in bitsandbytes' layout."""
    state = state_of(Path(folder))
    if (Path(folder) / "generation_config.json").is_file():
        options["generation_config"] = GenerationConfig.from_pretrained(folder)
    model, info = rebuilt.from_pretrained(None, state_dict=state, output_loading_info=True, **options)
    model.name_or_path = model.config.name_or_path = str(folder)
    return model, info


def _refuse_other_keys(info: dict[str, Any], new: list[str], same: bool) -> None:
    """Raise if weights are missing, but for the `new` layers, or if the `same` class doesn't know some."""
    missing = [key for key in info["missing_keys"] if key.rpartition(".")[0] not in new]
    unknown = list(info["unexpected_keys"]) if same else []
    for keys, what in ((missing, "weights are missing"), (unknown, "weights are not of this model")):
        if keys:
            more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
            raise ModelError(f"load: {what}: {', '.join(sorted(keys)[:SHOWN])}{more}")


def _fields(path: Path) -> dict[str, Any]:
    """The fields of `config.json`, which must have a record of surgeries."""
    file = path / "config.json"
    if not file.is_file():
        raise ModelError(f"load: there is no {file}; name a folder that a model was saved to")
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"load: {file} is not valid JSON ({error})") from error
    if "cadenza" not in fields and is_library(fields):
        return recorded(fields, saved_class(fields))
    if "cadenza" not in fields:
        raise ModelError(f"load: {file} records no surgery; load this stock model with transformers")
    return fields


def surgeries_of(recorded: dict[str, dict[str, Any]]) -> list[Surgery]:
    """The surgeries of a record, {class name: options}, in canonical order."""
    surgeries = []
    for name, options in recorded.items():
        if name not in SURGERIES:
            raise ModelError(f"load: the model was changed by {name}, which this version doesn't have")
        try:
            surgeries.append(SURGERIES[name](**options))
        except (TypeError, SurgeryError) as error:
            raise ModelError(f"load: the model was changed by {name} with {options}: {error}") from error
    return [surgery for surgery in in_order(surgeries) if isinstance(surgery, Surgery)]


def _stock_config(fields: dict[str, Any], surgeries: list[Surgery], options: dict[str, Any]) -> Any:
    """The config before any surgery, updated by the `options` that are its fields; and the other options."""
    known = type(AutoConfig.for_model(fields["cadenza"]["model_type"]))
    for surgery in reversed(surgeries):
        fields = surgery.stock_config(fields)
    own = ("auto_map", "cadenza", "model_type", "quantization_config")
    fields = {k: v for k, v in fields.items() if k not in own}
    return known.from_dict(fields, return_unused_kwargs=True, **options)


def _new_layers(stock: Any, saved: Any, config: PreTrainedConfig) -> list[str]:
    """The paths of the modules in `stock` that have no weights in `saved`."""
    with torch.device("meta"):
        models = [cls(copy.deepcopy(config)) for cls in (stock, saved)]
    keys = [{key.removeprefix(f"{m.base_model_prefix}."): key for key in m.state_dict()} for m in models]
    return sorted({keys[0][key].rpartition(".")[0] for key in keys[0].keys() - keys[1].keys()})


def _rebuilt(stock: Any, surgeries: list[Surgery], soft: bool) -> Any:
    """A subclass of `stock` with surgeries in `__init__`, so that `from_pretrained` fills their result."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        stock.__init__(self, *args, **kwargs)
        _tie(self)
        for surgery in surgeries:
            _operate(surgery, self, soft)

    body = {"__init__": __init__, "__module__": stock.__module__, "__qualname__": stock.__qualname__}
    return type(stock.__name__, (stock,), body)


def _tie(model: Any) -> None:
    """Tie weights now, as transformers would after loading, so that the surgeries see and keep the ties."""
    for target, source in model.all_tied_weights_keys.items():
        owner, _, name = target.rpartition(".")
        model.get_submodule(owner)._parameters[name] = model.get_parameter(source)


def _operate(surgery: Surgery, model: Any, soft: bool) -> None:
    """Apply `surgery`; if `soft`, one that keeps outputs may have no effect.

    Another head may lack what it changes. A vocabulary may have grown to a multiple since it was padded.
    """
    if isinstance(surgery, AttentionSurgery):
        surgery.prove = False  # the model proved it before it was saved; here it has no weights yet
    try:
        surgery.operate(model)
    except NoEffect as error:
        if not (soft and (surgery.keeps_outputs or isinstance(surgery, VocabPadding))):
            raise
        warnings.warn(NoEffectWarning(str(error)), stacklevel=2)
