"""The bytes of weights and gradients under FSDP, by units: each repeated layer, and the rest as the root.

A device keeps a shard of each parameter. It gathers whole units to compute with them: the root from the first
forward to the last backward, and two layers, the one that computes and the next one. Gradients of a unit are
whole until they are reduced. Those of the root are reduced last.
"""

from dataclasses import dataclass
from typing import Any

import torch
from composer.distributed.mosaic_parallelism import get_mixed_precision
from torch import Tensor, nn

from cadenza.recipe.errors import RecipeError
from cadenza.recipe.memory.setting import Setting
from cadenza.recipe.parallelism import is_layer

KEY = "train.parallelism_config"
OFFLOADS = ("activation_cpu_offload", "cpu_offload")
GATHERED, IN_FLIGHT = "gathered weights", "gradients in flight"


@dataclass(frozen=True)
class Sharding:
    """How parameters are stored, computed with and reduced; None: in their own dtype."""

    devices: int
    param: torch.dtype | None
    reduce: torch.dtype | None
    reshard: bool

    def shard(self, parameter: Tensor) -> int:
        """Bytes of a parameter's largest shard: it is divided along its first dimension."""
        rows = parameter.shape[0] if parameter.ndim else 1
        whole = parameter.numel() * parameter.element_size()
        return whole * -(-rows // self.devices) // max(rows, 1)

    def whole(self, parameters: list[Tensor], dtype: torch.dtype | None) -> int:
        """Bytes of whole parameters in `dtype`."""
        return sum(p.numel() * (dtype.itemsize if dtype else p.element_size()) for p in parameters)

    def computing(self, model: nn.Module) -> nn.Module:
        """`model` with its parameters in the dtype that they are computed with, in place."""
        for parameter in model.parameters():
            parameter.data = parameter.data.to(self.param)
        return model

    def gathered(self, model: nn.Module) -> int:
        """Bytes of the whole weights that a device holds at once."""
        root, layers = units(model)
        sizes = sorted((self.whole(layer, self.param) for layer in layers), reverse=True)
        return self.whole(root, self.param) + sum(sizes[:2] if self.reshard else sizes)

    def in_flight(self, model: nn.Module) -> int:
        """Bytes of the root's whole gradients, and those of a layer as they are reduced."""
        root, layers = ([_trained(unit) for unit in found] for found in ([units(model)[0]], units(model)[1]))
        own = self.whole(root[0], self.param)
        return own + max((self._reduced(layer) for layer in layers), default=0)

    def at_the_end(self, model: nn.Module) -> int:
        """Bytes of the root's gradients as they are reduced, when no activation is left."""
        return self._reduced(_trained(units(model)[0]))

    def _reduced(self, unit: list[Tensor]) -> int:
        return self.whole(unit, self.param) + self.whole(unit, self.reduce or self.param)


def sharding_of(setting: Setting) -> Sharding | None:
    """The sharding of a recipe; None: every device holds all.

    Raises:
        RecipeError: FSDP in a way whose memory isn't known here.
    """
    options = setting.sharded
    if options is None:
        return None
    name = next(iter(setting.recipe.train.parallelism_config))
    for key in OFFLOADS:
        if options.get(key):
            raise RecipeError(f"{KEY}.{name}.{key} is true; the table of memory knows no offloading")
    strategy = options.get("sharding_strategy", "FULL_SHARD")
    if strategy not in ("FULL_SHARD", "SHARD_GRAD_OP"):
        known = "it knows FULL_SHARD and SHARD_GRAD_OP"
        raise RecipeError(
            f"{KEY}.{name}.sharding_strategy is {strategy}; the table of memory doesn't, {known}"
        )
    mixed = options.get("mixed_precision", "DEFAULT")
    _, param, reduce, _ = get_mixed_precision(_precision(setting), mixed)
    reshard = bool(options.get("reshard_after_forward", True)) and strategy == "FULL_SHARD"
    return Sharding(setting.devices, param, reduce, reshard)


def units(model: nn.Module) -> tuple[list[Tensor], list[list[Tensor]]]:
    """The root's parameters, and those of each layer."""
    layers: list[list[Tensor]] = [list(module.parameters()) for module in model.modules() if is_layer(module)]
    inner = {id(parameter) for layer in layers for parameter in layer}
    return [p for p in model.parameters() if id(p) not in inner], layers


def _trained(parameters: list[Tensor]) -> list[Tensor]:
    return [parameter for parameter in parameters if parameter.requires_grad]


def _precision(setting: Setting) -> Any:
    from composer.core import Precision

    return Precision(setting.precision)
