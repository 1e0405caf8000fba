"""Which layers of a model train in few bits, and how."""

from collections.abc import Set
from typing import NamedTuple

from torch import nn

from cadenza.quantization.eligible import ineligible
from cadenza.quantization.experts import expert_weights, other_layers
from cadenza.quantization.signs.nonnegative import nonnegative_inputs
from cadenza.surgery.retype import stock_class

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Layers(NamedTuple):
    """The layers of a model, by path."""

    quantized: Set[str]
    skipped: dict[str, str]  # with the reason
    edges: set[str]  # the first convolution and the last linear layer
    unsigned: set[str]  # their inputs are never negative


def chosen_layers(model: nn.Module, technique: str, signs: bool) -> Layers:
    """Which layers of `model` `technique` quantizes; `signs`: whether to look for inputs never negative."""
    skipped = ineligible(model, technique, heads=False, kinds=KINDS)
    skipped |= other_layers(model) | expert_weights(model)
    layers = {
        path: module
        for path, module in model.named_modules()
        if stock_class(module) in KINDS and "weight" in module._parameters and path not in skipped
    }
    unsigned = nonnegative_inputs(model) if signs else set()
    return Layers(layers.keys(), skipped, _edges(layers), unsigned)


def _edges(layers: dict[str, nn.Module]) -> set[str]:
    """The paths of the first convolution and of the last linear layer, if there are any."""
    linear = [path for path, layer in layers.items() if isinstance(layer, nn.Linear)]
    return {*[path for path in layers if path not in linear][:1], *linear[-1:]}
