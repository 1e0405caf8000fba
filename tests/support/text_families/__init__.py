"""The text families of transformers as small random models, with what is special about each switched on."""

from copy import deepcopy
from dataclasses import fields
from importlib import import_module
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto as auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from text_families.kinds import CAUSAL_ENCODERS, ENCODERS, HYBRID, RECURRENT
from text_families.parts import CLASSES, PARTS
from text_families.sizes import ALTERNATING, SIZES
from text_families.skipped import skipped
from text_families.table import LISTED

__all__ = ["FAMILIES", "build", "config", "has_classifier", "kind", "skipped"]

FAMILIES: dict[str, dict[str, Any]] = {
    name: own for name, own in (LISTED | PARTS).items() if name not in skipped
}

# Encoder-decoders whose decoder can be had by itself: that is the text family.
_DECODERS = ("bart", "mbart", "mvp")


def build(
    name: str, seed: int = 0, *, attention: str | None = None, classifies: bool = False, **overrides: Any
) -> PreTrainedModel:
    """A small random model of a family, with its language-model head if it has one, in eval mode.

    Args:
        classifies: with the head that classifies sequences in place of that.
    """
    settings = config(name, **overrides)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        builder = auto.AutoModelForSequenceClassification.from_config if classifies else _builder(name)
        model = builder(settings, attn_implementation=attention, dtype=torch.float32)
    _stir(model, torch.Generator().manual_seed(seed))
    return model.eval()


def config(name: str, **overrides: Any) -> PreTrainedConfig:
    """The config of a family: the common sizes, no dropout, what is special to it."""
    config_class = CONFIG_MAPPING[name]
    own = {field.name: field.default for field in fields(config_class)}
    common = {field: SIZES[field] for field in own if field in SIZES}
    common |= {field: 0.0 for field, default in own.items() if "drop" in field and _is_number(default)}
    if "layer_types" in own:
        common["num_hidden_layers"] = ALTERNATING
    return config_class(**deepcopy(common | FAMILIES[name] | overrides))  # some write into lists


def has_classifier(name: str) -> bool:
    """Whether a family has a head that classifies sequences."""
    return name in auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES


def kind(name: str) -> str:
    """recurrent, hybrid (attention and recurrence or convolution), encoder, mixture (of experts), decoder."""
    if name in RECURRENT:
        return "recurrent"
    if name in HYBRID:
        return "hybrid"
    masked = _auto(name) in (auto.AutoModelForMaskedLM, auto.AutoModelForTextEncoding)
    if name in ENCODERS or (masked and name not in CAUSAL_ENCODERS):
        return "encoder"
    names = " ".join(field.name for field in fields(CONFIG_MAPPING[name]))
    return "mixture" if "expert" in names or "router" in names else "decoder"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _auto(name: str) -> Any:
    if name in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES and name not in _DECODERS:
        return auto.AutoModelForMaskedLM
    if name in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return auto.AutoModelForCausalLM
    if name in auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES:
        return auto.AutoModelForTextEncoding
    return auto.AutoModel


def _builder(name: str) -> Any:
    if name not in CLASSES:
        return _auto(name).from_config
    package, _, beside = CONFIG_MAPPING[name].__module__.rpartition(".")
    file, _, found = CLASSES[name].rpartition(".")
    module = import_module(f"{package}.{file or beside.replace('configuration_', 'modeling_')}")
    return getattr(module, found)._from_config


def _stir(model: PreTrainedModel, generator: torch.Generator) -> None:
    """Adds noise to what is nearly constant: a bias of zero hides mistakes, so does a norm of weight one."""
    for name, tensor in _weights(model).items():
        if name.endswith("tid2eid"):  # token -> experts, all the first one
            tensor.copy_(torch.arange(tensor.numel()).view(tensor.shape) % model.config.n_routed_experts)
        elif tensor.is_floating_point() and (tensor.numel() == 1 or tensor.std() < 0.1):
            size = 0.1 if tensor.ndim < 2 else 0.3
            tensor.data += size * torch.randn(tensor.shape, generator=generator)
        if name.endswith("sinks"):  # logits, beside those of keys
            tensor.data += 3


def _weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The parameters, and the buffers that are saved with them, such as the biases of a router."""
    saved = model.state_dict(keep_vars=True)
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in saved}
    return dict(model.named_parameters()) | buffers
