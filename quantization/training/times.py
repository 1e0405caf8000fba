"""The times of a training in few bits: its start, then the end of the calibration.

Between the two lies a batch at least, also where a short training reaches both at once.
"""

from composer.core import State, Time
from composer.loggers import Logger
from torch import nn

from cadenza.quantization.training.calibration import (
    calibrating,
    measured,
    quantized_inputs,
    set_activation_bounds,
    start_quantization,
    waiting,
)
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.runtime import reached

METRICS = "quantization_aware_training"


def is_later(start: str) -> bool:
    """Whether `start` isn't the first step."""
    return Time.from_timestring(start).value > 0


def check_order(start: str, calibrate_until: str) -> None:
    """Raise `SurgeryError` unless the calibration ends after a later start.

    Times in different units can't be compared without the data, so they are refused.
    """
    begin, end = Time.from_timestring(start), Time.from_timestring(calibrate_until)
    if is_later(start) and (begin.unit != end.unit or end.value <= begin.value):
        raise SurgeryError(
            f"calibrate_until is {calibrate_until!r} and start {start!r}; calibrate_until must be a later "
            "time in the same unit"
        )


def begin_batch(state: State, logger: Logger, start: str, calibrate_until: str) -> None:
    """Start to quantize the model, or end its calibration, if it is time."""
    model = state.model
    if waiting(model):
        if reached(state, Time.from_timestring(start)):
            start_quantization(model)
            logger.log_metrics({f"{METRICS}/started": 1.0})
    elif calibrating(model) and reached(state, Time.from_timestring(calibrate_until)) and _is_due(model):
        set_activation_bounds(model)
        logger.log_metrics({f"{METRICS}/calibrated": 1.0})


def unfinished(model: nn.Module, start: str, calibrate_until: str) -> str:
    """What the end of training says of layers that aren't quantized as asked; empty if all are."""
    if waiting(model):
        return f"nothing is quantized yet: training ended before start={start}"
    layers = list(calibrating(model))
    if layers and len(layers) < len(quantized_inputs(model)):
        return f"{len(layers)} layers, such as {layers[0]}, have no bounds: training never called them"
    until = f"calibrate_until={calibrate_until}"
    return f"activations aren't quantized yet: training ended before {until}" if layers else ""


def _is_due(model: nn.Module) -> bool:
    """Whether bounds can be set: for layers that were called, or for none, which is an error."""
    layers = calibrating(model)
    return len(layers) == len(quantized_inputs(model)) or bool(measured(layers))
