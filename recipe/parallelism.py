"""Sharding by a recipe: Composer's FSDP configs, and which modules are sharded separately."""

import warnings
from dataclasses import fields
from typing import Any

from composer.utils.parallelism import FSDP2Config, FSDPConfig, ParallelismConfig
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from cadenza.recipe.errors import RecipeError, nearest

CONFIGS: dict[str, Any] = {"fsdp": FSDPConfig, "fsdp2": FSDP2Config}
KEY = "train.parallelism_config"


def parallelism(section: dict[str, Any], cuda: bool) -> ParallelismConfig | None:
    """Composer's config from `train.parallelism_config`, `{fsdp: {...}}` or `{fsdp2: {...}}`; None if empty.

    Raises:
        RecipeError: an unknown key, sharded checkpoints, or no CUDA device.
    """
    if not section:
        return None
    for name, options in section.items():
        if name not in CONFIGS:
            raise RecipeError(f"unknown key {KEY}.{name}; {nearest(name, CONFIGS)}")
        if not isinstance(options, dict | None):
            raise RecipeError(f"{KEY}.{name} must be a mapping, not {options!r}")
        _check_options(name, options or {})
    if len(section) > 1:
        raise RecipeError(f"{KEY} has both fsdp and fsdp2; leave one out")
    if not cuda:
        raise RecipeError(f"{KEY}: FSDP shards over CUDA devices, and there is none; leave it out")
    ((name, options),) = section.items()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="FSDP2 Config/APIs are experimental")
        config = CONFIGS[name](**{"state_dict_type": "full", **(options or {})})
    return ParallelismConfig(**{name: config})


def mark_layers(model: Any) -> None:
    """Let Composer shard each repeated layer of a `HuggingFaceModel` separately, and the rest as one unit."""
    model.model.fsdp_wrap_fn = is_layer


def is_layer(module: nn.Module) -> bool:
    """Whether `module` is one of the repeated layers of a transformers model."""
    return isinstance(module, GradientCheckpointingLayer)


def _check_options(name: str, options: dict[str, Any]) -> None:
    known = [f.name for f in fields(CONFIGS[name]) if not f.name.startswith("_") and "mesh" not in f.name]
    for option in options:
        if option not in known:
            raise RecipeError(f"unknown key {KEY}.{name}.{option}; {nearest(option, known)}")
    if options.get("state_dict_type", "full") != "full":
        raise RecipeError(
            f"{KEY}.{name}.state_dict_type is {options['state_dict_type']!r}; it must be 'full', "
            "a checkpoint that any number of devices can resume, and export"
        )
