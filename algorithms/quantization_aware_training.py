"""Quantization-aware training: convolutions and linear layers train with quantized weights and inputs."""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from composer.algorithms.warnings import NoEffectWarning
from composer.core import Event, State
from composer.loggers import Logger
from torch import nn

from cadenza.options import Choice, Range, Times, option
from cadenza.quantization.training.averages import BUFFERS
from cadenza.quantization.training.calibration import calibrate, calibrating, set_activation_bounds, waiting
from cadenza.quantization.training.chosen_layers import Layers, chosen_layers
from cadenza.quantization.training.fake_quantized import FakeQuantized
from cadenza.quantization.training.integers import check_converted, convert, load_converted
from cadenza.quantization.training.layer_state import quantize_layer
from cadenza.quantization.training.ranks import average_over_ranks
from cadenza.quantization.training.times import begin_batch, check_order, is_later, unfinished
from cadenza.surgery.engine import Site, Surgery
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.optimizers import Optimizers
from cadenza.surgery.parameters import leave_to_each_rank
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Stage, Undo

__all__ = [
    "QuantizationAwareTraining",
    "apply_quantization_aware_training",
    "check_converted",
    "convert",
    "load_converted",
    "quantize_after_training",
    "set_activation_bounds",
]

BITS = Range("[2, 8]")
AFTER_INIT = (Event.BATCH_START, Event.BATCH_END, Event.FIT_END)


@dataclass(repr=False, eq=False)
class QuantizationAwareTraining(Surgery):
    """Trains with weights and activations in 2 to 8 bits, as AQT does (arXiv 2105.03536).

    On ImageNet a ResNet-50 in 4 bits with edges in 8 has 77.09 %, in bfloat16 76.65 % (the authors' README).

    1. From `start`, by default the first step, weights are rounded to symmetric integers with one scale per
       output channel. Their gradients pass straight through the rounding.
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
    start: str = option(
        "0ba",
        "When weights begin to be quantized and inputs to be measured, such as `0.8dur`; before it layers "
        "compute in full precision. `calibrate_until` is later, in the same unit.",
        Times(zero=True),
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

        if self.activation_bits is not None:
            check_order(self.start, self.calibrate_until)

    def survey(self, model: nn.Module) -> Layers:
        """Which layers are quantized, and how."""
        return chosen_layers(model, type(self).__name__, signs=self.activation_bits is not None)

    def edit(self, site: Site) -> Iterator[Undo]:
        module, path, layers = site.module, site.path, site.survey
        if path not in layers.quantized:
            return
        edge = self.edge_bits if path in layers.edges else None
        weight, activation = (bits and (edge or bits) for bits in (self.weight_bits, self.activation_bits))
        yield from quantize_layer(
            module,
            weight,
            activation,
            self.granularity,
            path in layers.unsigned,
            self.edge_gradient,
            self.scales,
            waiting=is_later(self.start),
        )

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
            self._refuse_shards(state)
            return super().apply(event, state, logger)
        if event == Event.BATCH_START:
            return begin_batch(state, logger, self.start, self.calibrate_until)
        layers = calibrating(state.model)
        if event == Event.BATCH_END and layers and not waiting(state.model):
            average_over_ranks(list(layers.values()))
        elif event == Event.FIT_END and (why := unfinished(state.model, self.start, self.calibrate_until)):
            warnings.warn(NoEffectWarning(why), stacklevel=2)

    def _refuse_shards(self, state: State) -> None:
        """Raise where the scales of weights can't be set anew at the start: no rank holds a whole weight."""
        if (
            is_later(self.start)
            and self.scales == "learned"
            and getattr(state, "fsdp_config", None) is not None
        ):
            raise SurgeryError(
                f"start is {self.start!r} and scales 'learned', which FSDP's shards of weights don't allow: "
                "at the start a scale is computed from its weight; use scales 'calibrated', or no FSDP"
            )


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
