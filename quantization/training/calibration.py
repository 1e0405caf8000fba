"""When layers begin to be quantized, and the end of a calibration.

1. `start_quantization`: layers that waited in full precision quantize their weights and measure their inputs.
2. `set_activation_bounds`: measured averages become fixed bounds, the same on all ranks.
"""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from composer.models import ComposerModel
from torch import nn

from cadenza.quantization.training.fake_quantized import FakeQuantized
from cadenza.quantization.training.ranks import agree, average_over_ranks
from cadenza.surgery.errors import SurgeryError


def waiting(model: nn.Module) -> dict[str, Any]:
    """The layers of `model` that compute in full precision until `start_quantization`, by path."""
    return {path: m for path, m in model.named_modules() if isinstance(m, FakeQuantized) and m.waiting}


def start_quantization(model: nn.Module) -> int:
    """Quantize the weights of waiting layers from now on, and measure their inputs; returns their number."""
    layers = waiting(model)
    for layer in layers.values():
        layer.start()
    return len(layers)


def quantized_inputs(model: nn.Module) -> dict[str, Any]:
    """The layers of `model` whose inputs are quantized during or after the calibration, by path."""
    layers = {path: m for path, m in model.named_modules() if isinstance(m, FakeQuantized)}
    return {path: layer for path, layer in layers.items() if layer.activation_bits is not None}


def calibrating(model: nn.Module) -> dict[str, Any]:
    """The quantized layers of `model` whose inputs have no bounds yet, by path."""
    return {path: layer for path, layer in quantized_inputs(model).items() if layer.calibrating}


def measured(layers: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `layers` that have seen a batch in train mode."""
    return {path: layer for path, layer in layers.items() if layer.input_batches}


def run_on(model: nn.Module, batch: Any) -> Any:
    """The outputs of `model`: a Composer model takes `batch` whole, another one a mapping by keyword.

    A tuple or a list is a network's positional arguments; anything else is its only one.
    """
    if isinstance(model, ComposerModel):
        return model(batch)
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, tuple | list) else model(batch)


def calibrate(model: nn.Module, batches: Iterable[Any]) -> int:
    """Measure the inputs of quantized layers on `batches`, set their bounds, and return their number.

    Nothing is trained: the model computes in eval mode, and batch norm keeps its statistics. `run_on` says
    what a batch may be. Modes are as before afterwards.

    Raises:
        SurgeryError: there are no batches, none is finite, or `model` has no layer that calibrates, or one
            that waits for its start.
    """
    _refuse_waiting(model)
    layers = calibrating(model)
    if not layers:
        raise SurgeryError("calibrate: no layer of the model calibrates; quantize its activations before")
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        for layer in layers.values():
            layer.training = True  # alone: a mixin's layer has no children
        with torch.no_grad():
            for batch in batches:
                run_on(model, batch)
    finally:
        for module, training in modes:
            module.training = training
    return set_activation_bounds(model)


def set_activation_bounds(model: nn.Module) -> int:
    """Quantize the activations of `model` by the measured bounds from now on; returns the number of layers.

    A layer that has not been called yet continues to measure. Batches that weren't finite are left out, and a
    warning names the first layer that got some. In a process group all ranks must call this.

    Raises:
        SurgeryError: no layer has seen a batch in train mode, layers wait for their start, or ranks calibrate
            different layers.
    """
    _refuse_waiting(model)
    layers = calibrating(model)
    agree(list(layers))
    average_over_ranks(list(layers.values()))
    _warn_of_left_out(layers)
    ending = measured(layers)
    if not ending and len(layers) == len(quantized_inputs(model)):
        finite = " that was finite" if any(layer.left_out for layer in layers.values()) else ""
        raise SurgeryError(
            f"no quantized layer has seen a batch in train mode{finite}, so there are no bounds to set"
        )
    for layer in ending.values():
        layer.set_bound()
    return len(ending)


def _refuse_waiting(model: nn.Module) -> None:
    if layers := list(waiting(model)):
        raise SurgeryError(
            f"{layers[0]} still computes in full precision; bounds are measured after the option start: "
            "train further, or quantize the model anew without start"
        )


def _warn_of_left_out(layers: Mapping[str, Any]) -> None:
    counts = {path: int(layer.left_out or 0) for path, layer in layers.items()}
    if some := {path: count for path, count in counts.items() if count}:
        path, count = next(iter(some.items()))
        more = f", and of {len(some) - 1} more layers" if len(some) > 1 else ""
        warnings.warn(
            f"{count} batches that weren't finite are left out of the bounds of {path}{more}", stacklevel=3
        )
