"""`quantization_config`: how transformers is told which layers are quantized, and in which format."""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import get_keys_to_not_convert
from transformers.quantizers.quantizers_utils import should_convert_module

from cadenza.algorithms import PostTrainingQuantization
from cadenza.models.errors import ModelError
from cadenza.models.quantized.tensors import FOUR_BIT, LIBRARY
from cadenza.quantization.eligible import ineligible
from cadenza.quantization.stored.formats import BLOCK
from cadenza.quantization.stored.quantized_linear import Quantized
from cadenza.surgery import history
from cadenza.surgery.retype import stock_class

NAME = PostTrainingQuantization.__name__
KERNELS = ("float32", "bfloat16", "float16")
THRESHOLD = 6.0


def config_of(model: PreTrainedModel) -> dict[str, Any]:
    """The `quantization_config` with which stock transformers computes the same as `model`.

    Raises:
        ModelError: there is none; the message says why.
    """
    layers: dict[str, Any] = {path: m for path, m in model.named_modules() if isinstance(m, Quantized)}
    format = _refuse_inexpressible(model, layers)
    compute = _compute_dtype(model, format, next(iter(layers.values())).compute_dtype)
    skipped = _skipped(model, set(layers))
    shared = {"quant_method": "bitsandbytes", "llm_int8_skip_modules": skipped}
    if format == "int8":
        return {**shared, "load_in_8bit": True, "load_in_4bit": False, "llm_int8_threshold": THRESHOLD}
    kind, double = FOUR_BIT[format]
    options = {"quant_type": kind, "use_double_quant": double, "compute_dtype": compute}
    four = {f"bnb_4bit_{key}": value for key, value in {**options, "quant_storage": "uint8"}.items()}
    return {**shared, "load_in_4bit": True, "load_in_8bit": False, "llm_int8_threshold": THRESHOLD, **four}


def options_of(model: PreTrainedModel, settings: dict[str, Any]) -> dict[str, Any]:
    """The options of our technique that quantize in `model`, on meta, the layers that transformers does.

    Args:
        model: a stock model of the class that was saved.
        settings: `quantization_config`.

    Raises:
        ModelError: `settings` aren't those of a model that can be read.
    """
    format = _format(settings)
    default = get_keys_to_not_convert(model) if settings.get("llm_int8_skip_modules") is None else []
    patterns = [*default, *(settings.get("llm_int8_skip_modules") or []), *_kept_floats(model)]
    modules = _convertible(model)
    chosen = {path for path in modules if should_convert_module(path, patterns)}
    for path in sorted(chosen):
        if isinstance(modules[path], Conv1D):
            raise ModelError(f"load: {path} is a Conv1D in few bits; only layers of nn.Linear can be read")
    refused = ineligible(model, NAME, heads=True)
    free = {path for path in modules if path not in refused}
    only = None if chosen <= free else sorted(chosen)
    except_ = sorted(free - chosen) or None if only is None else None
    compute = settings.get("bnb_4bit_compute_dtype") or "float32"
    compute = None if format == "int8" or compute == _name(model.dtype) else compute
    return {"format": format, "only": only, "except_": except_, "compute_dtype": compute}


def is_library(fields: dict[str, Any]) -> bool:
    """Whether the config `fields` are of a model in bitsandbytes' layout."""
    return (fields.get("quantization_config") or {}).get("quant_method") == "bitsandbytes"


def _format(settings: dict[str, Any]) -> str:
    if settings.get("load_in_8bit"):
        if (
            settings.get("llm_int8_has_fp16_weight")
            or settings.get("llm_int8_threshold", THRESHOLD) != THRESHOLD
        ):
            raise ModelError(f"load: int8 is read with llm_int8_threshold {THRESHOLD} and int8 weights alone")
        return "int8"
    kind = settings.get("bnb_4bit_quant_type", "fp4"), bool(settings.get("bnb_4bit_use_double_quant"))
    for format, parts in FOUR_BIT.items():
        if parts == kind:
            return format
    raise ModelError(f"load: bnb_4bit_quant_type {kind[0]!r} can't be read, only nf4 and fp4")


def _refuse_inexpressible(model: PreTrainedModel, layers: dict[str, Any]) -> str:
    """The format of all `layers`; raises if stock code can't compute what `model` does."""
    if not layers:
        raise ModelError(f"save: {type(model).__name__} has no quantized layer; leave out format")
    changed = [str(e) for e in history(model) if e.name != NAME and not e.keeps_outputs]
    if changed:
        right = "without format= the folder is cadenza's own"
        raise ModelError(f"save: stock code can't compute the outputs after {', '.join(changed)}; {right}")
    formats = {layer.storage for layer in layers.values()}
    if len(formats) > 1 or not formats <= set(LIBRARY):
        right = f"bitsandbytes has one of {', '.join(LIBRARY)} a model"
        raise ModelError(f"save: the layers are in {', '.join(sorted(formats))}; {right}")
    for path, layer in layers.items():
        if stock_class(layer) is not nn.Linear:
            raise ModelError(
                f"save: {path} is a {stock_class(layer).__name__}; transformers quantizes nn.Linear"
            )
        if layer.storage != "int8" and layer.in_features % 2 == 0 and layer.in_features % BLOCK:
            why = f"the library's kernel for CPUs takes blocks of {BLOCK} to begin anew in each row"
            raise ModelError(f"save: {path} has {layer.in_features} inputs, and {why}; except such layers")
    return formats.pop()


def _compute_dtype(model: PreTrainedModel, format: str, given: str | None) -> str:
    """The dtype of the products; without one, the layers here take that of their input, the model's."""
    own = _name(model.dtype)
    if format == "int8" and given not in (None, own):
        raise ModelError(f"save: int8 of bitsandbytes computes in {own}, the model's dtype, not in {given}")
    if (given or own) not in KERNELS:
        raise ModelError(
            f"save: bitsandbytes computes in {', '.join(KERNELS)}, not in {own}; convert the model"
        )
    return given or own


def _skipped(model: PreTrainedModel, quantized: set[str]) -> list[str]:
    """The linear layers that aren't quantized, each also by its path in the model without a head.

    transformers takes them as regular expressions for the beginning of a path, or for its end.
    """
    paths = [path for path in _convertible(model) if path not in quantized]
    base = f"{model.base_model_prefix}."
    shorter = [path.removeprefix(base) for path in paths if path.startswith(base)]
    for patterns in (sorted({*paths, *shorter}), paths):
        if not _wrong(model, patterns, quantized):
            return patterns
    skipped = _wrong(model, paths, quantized)[0]
    why = f"its list of layers to skip would also skip {skipped}"
    right = "quantize neither or both of the layers with such names"
    raise ModelError(f"save: transformers can't express which layers are quantized: {why}; {right}")


def _wrong(model: PreTrainedModel, patterns: list[str], quantized: set[str]) -> list[str]:
    """The layers that transformers, with the list `patterns`, would take for others than they are."""
    found = [*patterns, *_kept_floats(model)]
    return [path for path in _convertible(model) if should_convert_module(path, found) != (path in quantized)]


def _convertible(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that transformers would quantize."""
    return {p: m for p, m in model.named_modules() if isinstance(m, Conv1D) or stock_class(m) is nn.Linear}


def _kept_floats(model: Any) -> list[str]:
    return list(model._keep_in_fp32_modules or [])


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
