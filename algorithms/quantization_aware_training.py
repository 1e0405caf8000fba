"""Quantization-aware training: convolutions and linear layers train with quantized weights and inputs."""

import warnings
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

from composer.algorithms.warnings import NoEffectWarning
from composer.core import Event, State, Time
from composer.loggers import Logger
from torch import Tensor, nn

from cadenza.options import Choice, Range, Times, option
from cadenza.quantization.eligible import ineligible
from cadenza.quantization.experts import expert_weights, other_layers
from cadenza.quantization.signs.nonnegative import nonnegative_inputs
from cadenza.quantization.training.averages import BUFFERS, new_averages
from cadenza.quantization.training.calibration import (
    calibrate,
    calibrating,
    measured,
    quantized_inputs,
    set_activation_bounds,
)
from cadenza.quantization.training.fake_quantized import FakeQuantized
from cadenza.quantization.training.integers import check_converted, convert, load_converted
from cadenza.quantization.training.learned_scales import initial_weight_scale
from cadenza.quantization.training.ranks import average_over_ranks
from cadenza.surgery.engine import Site, Surgery
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.optimizers import Optimizers
from cadenza.surgery.parameters import add_buffers, add_parameters, leave_to_each_rank, set_attributes
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Stage, Undo, mix, stock_class
from cadenza.surgery.runtime import reached

__all__ = [
    "QuantizationAwareTraining",
    "apply_quantization_aware_training",
    "check_converted",
    "convert",
    "load_converted",
    "quantize_after_training",
    "set_activation_bounds",
]

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
BITS = Range("[2, 8]")
AFTER_INIT = (Event.BATCH_START, Event.BATCH_END, Event.FIT_END)


class Layers(NamedTuple):
    """The layers of a model, by path."""

    quantized: Set[str]
    skipped: dict[str, str]  # with the reason
    edges: set[str]  # the first convolution and the last linear layer
    unsigned: set[str]  # their inputs are never negative


@dataclass(repr=False, eq=False)
class QuantizationAwareTraining(Surgery):
    """Trains with weights and activations in 2 to 8 bits, as AQT does (arXiv 2105.03536).

    On ImageNet a ResNet-50 in 4 bits with edges in 8 has 77.09 %, in bfloat16 76.65 % (the authors' README).

    1. From the first step, weights are rounded to symmetric integers with one scale per output channel. Their
       gradients pass straight through the rounding.
    2. During the calibration, inputs of layers are not quantized. Moving averages of the maxima and minima of
       their channels are measured.
    3. Afterwards inputs are quantized, with these averages as fixed bounds. Their integers are unsigned in a
       layer behind a ReLU.

    With `scales` "learned" scales are parameters, and inputs are rounded to the nearest code. The scale of an
    input starts at the calibrated one, that of a weight at LSQ's; its authors start from a trained network.

    Batch norm, attention, residual sums and biases stay in floating point. The arithmetic is simulated. It
    saves a modelled cost (`python -m cadenza.studies.compute_cost`) and, by `convert`, memory.

    Works on any model with `nn.Linear`, `nn.Conv1d`, `nn.Conv2d` or `nn.Conv3d`.
    """

    weight_bits: int | None = option(4, "Bits of weights; null does not quantize them.", BITS)
    activation_bits: int | None = option(4, "Bits of activations; null does not quantize them.", BITS)
    edge_bits: int | None = option(
        8, "Bits of the first convolution and the last linear layer; null: those of all others.", BITS
    )
    calibrate_until: str = option(
        "0.05dur",
        "The end of the calibration, such as `7500ba` (as the authors), `12ep` or `0.05dur`.",
        Times(),
    )
    granularity: str = option(
        "per_channel",
        "Of the inputs' bounds; integer hardware needs `per_tensor`.",
        Choice("per_channel", "per_tensor"),
    )
    edge_gradient: str = option(
        "full",
        "Of inputs at the ends of their range; `half` is AQT's under JAX, for inputs in the lowest and the "
        "highest unsigned code.",
        Choice("full", "half"),
    )
    scales: str = option(
        "calibrated",
        "`learned`: scales of weights and inputs are parameters that train, as in LSQ (arXiv 1902.08153).",
        Choice("calibrated", "learned"),
    )
    stage = Stage.QUANTIZE

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight_bits is None and self.activation_bits is None:
            raise SurgeryError("weight_bits and activation_bits are both null: nothing is to be quantized")
        if self.scales == "learned" and self.edge_gradient != "full":
            raise SurgeryError(
                f"edge_gradient {self.edge_gradient!r} is AQT's, of calibrated scales; with scales 'learned' "
                "the gradient is LSQ's: leave edge_gradient at 'full'"
            )

    def survey(self, model: nn.Module) -> Layers:
        """Which layers are quantized, and how."""
        skipped = ineligible(model, type(self).__name__, heads=False, kinds=KINDS)
        skipped |= other_layers(model) | expert_weights(model)
        layers = {
            path: module
            for path, module in model.named_modules()
            if stock_class(module) in KINDS and "weight" in module._parameters and path not in skipped
        }
        unsigned = nonnegative_inputs(model) if self.activation_bits else set()
        return Layers(layers.keys(), skipped, _edges(layers), unsigned)

    def edit(self, site: Site) -> Iterator[Undo]:
        module, path, layers = site.module, site.path, site.survey
        if path not in layers.quantized:
            return
        edge = self.edge_bits if path in layers.edges else None
        weight, activation = (bits and (edge or bits) for bits in (self.weight_bits, self.activation_bits))
        if activation is not None:
            yield add_buffers(module, self._new_averages(module))
        if self.scales == "learned":
            yield add_parameters(module, self._new_scales(module, weight, activation))
        unsigned = path in layers.unsigned
        yield set_attributes(module, weight_bits=weight, activation_bits=activation, left_out=None)
        yield set_attributes(module, never_negative=unsigned, unsigned=unsigned)
        yield set_attributes(module, edge_gradient=self.edge_gradient, scales=self.scales)
        yield set_attributes(module, calibrating=activation is not None)
        yield mix(module, FakeQuantized)

    def _new_averages(self, module: Any) -> dict[str, Tensor]:
        """The buffers of a layer, for each input channel or for the whole input."""
        return new_averages(self._input_scales(module), module.weight.device)

    def _input_scales(self, module: Any) -> int:
        return (
            module.weight.shape[1] * getattr(module, "groups", 1) if self.granularity == "per_channel" else 1
        )

    def _new_scales(self, module: Any, weight: int | None, activation: int | None) -> dict[str, nn.Parameter]:
        """The parameters of a layer's scales, which train if its weight does."""
        found, like = {}, module.weight.detach()
        if weight is not None:
            found["learned_weight_scale"] = initial_weight_scale(like, weight)
        if activation is not None:
            found["input_scale_factor"] = like.new_ones(self._input_scales(module))
        return {name: nn.Parameter(data, module.weight.requires_grad) for name, data in found.items()}

    def finish(self, report: Report, survey: Layers) -> Iterator[Undo]:
        report.skipped = survey.skipped
        if not report.changes or self.activation_bits is None:
            return
        paths = [change.path for change in report.changes]
        report.notes.append(f"{len(survey.unsigned & set(paths))} with inputs that are never negative")
        yield leave_to_each_rank(report.model, [f"{p}.{b}" for p in paths for b in BUFFERS])

    def loaded(self, model: nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, FakeQuantized):
                module.loaded()

    def match(self, event: Event, state: State) -> bool:
        return event == Event.INIT or (event in AFTER_INIT and self.report is not None)

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        if event == Event.INIT:
            return super().apply(event, state, logger)
        layers = calibrating(state.model)
        if layers and event == Event.BATCH_END:
            average_over_ranks(list(layers.values()))
        elif layers and event == Event.FIT_END:
            warnings.warn(NoEffectWarning(self._unfinished(state.model)), stacklevel=2)
        elif layers and reached(state, Time.from_timestring(self.calibrate_until)) and _is_due(state.model):
            set_activation_bounds(state.model)
            logger.log_metrics({"quantization_aware_training/calibrated": 1.0})

    def _unfinished(self, model: nn.Module) -> str:
        """What the end of training says of layers that still calibrate."""
        layers = list(calibrating(model))
        if len(layers) < len(quantized_inputs(model)):
            return f"{len(layers)} layers, such as {layers[0]}, have no bounds: training never called them"
        until = f"calibrate_until={self.calibrate_until}"
        return f"activations aren't quantized yet: training ended before {until}"


def apply_quantization_aware_training(
    model: nn.Module,
    weight_bits: int | None = 4,
    activation_bits: int | None = 4,
    edge_bits: int | None = 8,
    granularity: str = "per_channel",
    edge_gradient: str = "full",
    scales: str = "calibrated",
    *,
    optimizers: Optimizers = None,
) -> Report:
    """Train `model` with quantized weights and activations, in place; see `QuantizationAwareTraining`.

    Call `set_activation_bounds(model)` after some batches in train mode. Until then activations are measured,
    but not quantized.

    Raises:
        NoEffect: no convolution or linear layer is eligible.
        SurgeryError: an option is invalid.
    """
    options: dict[str, Any] = {"granularity": granularity, "edge_gradient": edge_gradient, "scales": scales}
    surgery = QuantizationAwareTraining(weight_bits, activation_bits, edge_bits, **options)
    return surgery.operate(model, optimizers)


def quantize_after_training(
    model: nn.Module,
    batches: Iterable[Any],
    weight_bits: int | None = 8,
    activation_bits: int | None = 8,
    edge_bits: int | None = 8,
    granularity: str = "per_tensor",
) -> Report:
    """Quantize a trained `model` in place, with bounds measured on `batches`; nothing is trained.

    A batch is what `model` is called with: a tensor, a tuple of arguments, or a mapping of keyword arguments.
    A Composer model takes batches of its own kind. Defaults are those which ONNX Runtime computes fast.

    Raises:
        NoEffect: no convolution or linear layer is eligible.
        SurgeryError: an option is invalid, or there are no batches, or none is finite.
    """
    report = apply_quantization_aware_training(model, weight_bits, activation_bits, edge_bits, granularity)
    if activation_bits is not None:
        calibrate(model, batches)
    return report


def _edges(layers: dict[str, nn.Module]) -> set[str]:
    """The paths of the first convolution and of the last linear layer, if there are any."""
    linear = [path for path, layer in layers.items() if isinstance(layer, nn.Linear)]
    return {*[path for path in layers if path not in linear][:1], *linear[-1:]}


def _is_due(model: nn.Module) -> bool:
    """Whether bounds can be set: for layers that were called, or for none, which is an error."""
    layers = calibrating(model)
    return len(layers) == len(quantized_inputs(model)) or bool(measured(layers))
