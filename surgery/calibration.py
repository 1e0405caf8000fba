"""The end of a calibration: from averages of what came in to bounds, the same on all ranks."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.fake_quantized import FakeQuantized


def calibrating(model: nn.Module) -> list[Any]:
    """The quantized layers of `model` that still measure their inputs."""
    return [m for m in model.modules() if isinstance(m, FakeQuantized) and m.calibrating]


def set_activation_bounds(model: nn.Module) -> int:
    """Quantize the activations of `model` from here on, by what was measured; returns of how many layers.

    A layer that wasn't called yet goes on measuring. Under a process group, all ranks have to call it.

    Raises:
        SurgeryError: no layer has seen a batch in train mode.
    """
    layers = [layer for layer in calibrating(model) if layer.input_batches]
    if not layers and not any(isinstance(m, FakeQuantized) and not m.calibrating for m in model.modules()):
        raise SurgeryError(
            "no quantized layer has seen a batch in train mode, so that there are no bounds to set"
        )
    average_over_ranks(layers)
    for layer in layers:
        layer.set_bound()
    return len(layers)


def average_over_ranks(layers: Sequence[Any]) -> None:
    """Give all ranks the mean of their averages. Those are linear, so that it doesn't matter how often."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return
    flat = torch.cat([layer.averages.flatten() for layer in layers])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    sizes = [layer.averages.numel() for layer in layers]
    for layer, part in zip(layers, flat.split(sizes), strict=True):
        layer.averages.copy_(part.view_as(layer.averages))
