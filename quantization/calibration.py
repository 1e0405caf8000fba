"""The end of a calibration: measured averages become fixed bounds, the same on all ranks."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from cadenza.quantization.fake_quantized import FakeQuantized
from cadenza.surgery.errors import SurgeryError


def calibrating(model: nn.Module) -> list[Any]:
    """The quantized layers of `model` that still measure their inputs."""
    return [m for m in model.modules() if isinstance(m, FakeQuantized) and m.calibrating]


def set_activation_bounds(model: nn.Module) -> int:
    """Quantize the activations of `model` by the measured bounds from now on; returns the number of layers.

    A layer that has not been called yet continues to measure. In a process group all ranks must call this.

    Raises:
        SurgeryError: no layer has seen a batch in train mode.
    """
    layers = [layer for layer in calibrating(model) if layer.input_batches]
    if not layers and not any(isinstance(m, FakeQuantized) and not m.calibrating for m in model.modules()):
        raise SurgeryError("no quantized layer has seen a batch in train mode, so there are no bounds to set")
    average_over_ranks(layers)
    for layer in layers:
        layer.set_bound()
    return len(layers)


def average_over_ranks(layers: Sequence[Any]) -> None:
    """Replace the averages of `layers` by their mean over all ranks.

    Moving averages are linear, so the result does not depend on how often this is called.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return
    flat = torch.cat([layer.averages.flatten() for layer in layers])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    sizes = [layer.averages.numel() for layer in layers]
    for layer, part in zip(layers, flat.split(sizes), strict=True):
        layer.averages.copy_(part.view_as(layer.averages))
