"""Moving averages in integers, which neither casts nor averages of a model spoil.

1. A number is an int64 in fixed units. Casts of a model (`model.half()`, FSDP's `buffer_dtype`) round floats,
   but no integers.
2. Beside the averages stands their weight, 1 - 0.9^n after n batches; a mean is an average over its weight.
   Both are linear in the batches. So EMA and SWA, which average buffers too, give a weighted mean again.

The obvious ways are a float32 buffer, which casts round, and float32 bits in an int32 buffer, as versions up
to 0.1 had: whatever averages those gets other numbers, or NaN.
"""

from typing import Any

import torch
from torch import Tensor

BUFFERS = ("input_averages", "input_batches", "calibrated")
DECAY = 0.1  # the weight of a new batch in the moving averages
UNIT = 2.0**-32  # of averages
ONE = 2**52  # the weight 1
LIMIT = 2.0**30  # larger numbers are left out
MOST_BATCHES = 2**28  # versions up to 0.1 counted batches in `input_batches`; weights are larger


def new_averages(channels: int, device: torch.device) -> dict[str, Tensor]:
    """The buffers of a layer at the start of its calibration.

    `input_averages` (2, channels) holds maxima and minima, `input_batches` () their weight. `calibrated` ()
    is 0 until the calibration ends. It is then the weight 1, and more than 0 in an average of models.
    """
    zeros = torch.zeros(2, channels, dtype=torch.int64, device=device)
    return dict(zip(BUFFERS, (zeros, zeros.new_zeros(()), zeros.new_zeros(())), strict=True))


def add_batch(layer: Any, extremes: Tensor) -> Tensor:
    """Add maxima and minima (2, channels) to the averages of `layer`, unless some aren't finite.

    Returns whether they were added, (): a tensor, so that nothing waits for the device.
    """
    usable = extremes.abs().amax() < LIMIT  # False for NaN
    new = torch.where(usable, extremes, 0).div(UNIT).to(torch.int64)
    _move(layer.input_averages, new, usable)
    _move(layer.input_batches, torch.full_like(layer.input_batches, ONE), usable)
    return usable


def averages(layer: Any) -> Tensor:
    """(2, channels) float32: the moving averages of maxima and minima, which start at zero."""
    return layer.input_averages.float() * UNIT


def weight(layer: Any) -> Tensor:
    """() float32: the weight of the batches in the averages, 0 to 1."""
    return layer.input_batches.float() / ONE


def upgrade(layer: Any) -> None:
    """Rewrite buffers that were filled from a file of version 0.1."""
    for name in BUFFERS:
        layer._buffers[name] = layer._buffers[name].to(torch.int64)
    if 0 < layer.calibrated < MOST_BATCHES:
        layer.calibrated.fill_(ONE)
    if 0 < layer.input_batches < MOST_BATCHES:
        floats = layer.input_averages.to(torch.int32).view(torch.float32)
        layer.input_averages.copy_(floats.double().div(UNIT).round())
        layer.input_batches.fill_(round(ONE * (1 - (1 - DECAY) ** int(layer.input_batches))))


def _move(average: Tensor, new: Tensor, usable: Tensor) -> None:
    """Move `average` towards `new`, rounded down: an average of minima never returns from below zero."""
    step = (new - average).float().mul(DECAY).floor().to(torch.int64)
    average.add_(torch.where(usable, step, 0))
