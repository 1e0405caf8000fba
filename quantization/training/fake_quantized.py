"""A layer that computes with quantized weights and inputs, and trains in floating point.

1. While `calibrating`, a forward in train mode updates moving averages of the maxima and minima of the input.
2. After `set_bound`, the input is quantized. Its bound is the larger of the two averages, and stays fixed.
3. The weight is quantized in every forward; its gradient reaches the stock parameter.
4. The stock forward of the layer runs on both.

A layer that is `waiting` skips 1 to 3 and computes in full precision, until `start`.

The obvious way is a new layer that calls `F.linear` or `F.conv2d`. Here the stock forward runs on a stand-in:
an object of the same class that shares all with the layer but its weight. So padding modes, groups and other
mixins keep working, and threads may share a layer.
"""

from typing import Any

import torch
from torch import Tensor, nn

from cadenza.quantization.training import averages
from cadenza.quantization.training.fake_quantize import (
    quantize,
    quantize_weight,
    scale_of,
    weight_scale,
)
from cadenza.quantization.training.learned_scales import (
    initial_weight_scale,
    learned_scale,
    quantize_learned,
    used,
)
from cadenza.quantization.training.ranks import leave_to_this_rank
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.retype import Mixin, Stage
from cadenza.surgery.runtime import uncompiled


class FakeQuantized(Mixin, of="quantization_aware_training", stage=Stage.QUANTIZE):
    """The mixin of an `nn.Linear`, `nn.Conv1d`, `nn.Conv2d` or `nn.Conv3d`.

    Attributes of the module: `weight_bits` and `activation_bits` (None: not quantized), `edge_gradient`, an
    argument of `quantize`, `scales` ("calibrated" or "learned"), `never_negative` (what tracing says of
    inputs), `unsigned` (whether that held in the calibration, too), `calibrating`, a copy of the buffer
    `calibrated` that can be read without waiting for the device, `waiting`, such a copy of the buffer
    `started`, and `left_out`, the number of batches that weren't finite (None: no batch yet).
    """

    def forward(self, input: Tensor) -> Tensor:
        waits = self._waits(input)
        entering = input if waits else self._quantized_input(input)
        stand_in = object.__new__(type(self))
        weight = self._waiting_weight() if waits else self._quantized_weight()
        stand_in.__dict__ = {**self.__dict__, "weight": weight}
        return super(FakeQuantized, stand_in).forward(entering)  # pyright: ignore[reportAttributeAccessIssue]

    def _waits(self, x: Tensor) -> bool:
        """Whether this forward computes in full precision."""
        if self.waiting and not (self.training and torch.is_grad_enabled()) and not x.is_meta:
            self.refresh()  # in an average of models the buffers change, but no flag
        return self.waiting

    def _waiting_weight(self) -> Tensor:
        """The weight as it is; learned scales get a gradient of zeros, since DDP waits for one."""
        weight = self.weight
        for name in ("learned_weight_scale", "input_scale_factor"):
            weight = used(weight, self._parameters[name]) if name in self._parameters else weight
        return weight

    def _quantized_weight(self) -> Tensor:
        if self.weight_bits is None:
            return self.weight
        if self.scales == "learned":
            count = self.weight[0].numel()
            return quantize_learned(self.weight, self.weight_scale(), self.weight_bits, True, count)
        return quantize_weight(self.weight, self.weight_scale(), self.weight_bits)

    def _quantized_input(self, x: Tensor) -> Tensor:
        if self.activation_bits is None:
            return x
        measures = self.training and torch.is_grad_enabled()
        if self.calibrating and not measures and not x.is_meta:
            self.refresh()  # in an average of models the buffers change, but no flag
        if self.calibrating:
            if self.training and _is_measurable(x):
                self.observe(x.detach())
            return used(x, self.input_scale_factor) if measures and self.scales == "learned" else x
        scale, signed = self.input_scale(), not self.unsigned
        if self.scales == "learned":
            count = x.shape[x.ndim - 1 - self._spatial_dims :].numel() / scale.numel()
            return quantize_learned(x, scale, self.activation_bits, signed, count)
        return quantize(x, scale, self.activation_bits, signed, self.edge_gradient)

    def observe(self, x: Tensor) -> None:
        """Add the maxima and minima of `x` to the averages, unless some aren't finite."""
        channel_dim = x.ndim - 1 - self._spatial_dims
        over = [d for d in range(x.ndim) if d != channel_dim or self.input_averages.shape[1] == 1]
        extremes = torch.stack([x.amax(over), x.amin(over)]).view_as(self.input_averages).float()
        left_out = ~averages.add_batch(self, extremes)
        self.left_out = left_out.long() if self.left_out is None else self.left_out + left_out

    @property
    def averages(self) -> Tensor:
        """(2, channels or 1) float32: the moving averages of maxima and minima, which start at zero."""
        return averages.averages(self)

    def weight_scale(self) -> Tensor:
        """The scale of each output channel of the weight, (out, 1, ...)."""
        if self.scales == "learned":
            return learned_scale(self.learned_weight_scale, 1.0).view(-1, *[1] * (self.weight.ndim - 1))
        return weight_scale(self.weight, self.weight_bits)

    def input_scale(self) -> Tensor:
        """The scale of the input, (channels or 1, 1, ...), which broadcasts to the input from the right."""
        bound = self.averages.abs().amax(0) / averages.weight(self)
        learned = self.scales == "learned"
        scale = scale_of(bound, self.activation_bits, not self.unsigned, nearest=learned)
        scale = learned_scale(self.input_scale_factor, scale) if learned else scale
        return scale.view(-1, *[1] * self._spatial_dims)

    @property
    def rounds_down(self) -> bool:
        """Whether the input is rounded down to its codes, and not to the nearest."""
        return self.unsigned and self.scales == "calibrated"

    def start(self) -> None:
        """End the wait. A learned scale of the weight starts from the weight of now."""
        if self.scales == "learned" and self.weight_bits is not None:
            with torch.no_grad():
                self.learned_weight_scale.copy_(initial_weight_scale(self.weight, self.weight_bits))
        self.started.fill_(averages.ONE)
        self.refresh()

    def set_bound(self) -> None:
        """End the calibration."""
        self.calibrated.fill_(averages.ONE)
        self.refresh()

    def refresh(self) -> None:
        """Update `waiting`, `calibrating` and `unsigned` from the buffers."""
        if "started" in self._buffers:
            self.waiting = not bool(self.started)
        if self.activation_bits is None:
            return
        self.calibrating = not bool(self.calibrated)
        self.unsigned = self.never_negative and not bool((self.input_averages[1] < 0).any())

    def loaded(self) -> None:
        """Update all that depends on the buffers, after they were filled from a file or a copy."""
        if any(buffer.is_meta for buffer in self._buffers.values() if buffer is not None):
            return
        if self.activation_bits is not None:
            averages.upgrade(self)
        self.refresh()

    @property
    def _spatial_dims(self) -> int:
        """The number of dimensions of the input after its channels."""
        return 0 if isinstance(self, nn.Linear) else self.weight.ndim - 2

    def extra_repr(self) -> str:
        weight = "weights as they are" if self.weight_bits is None else f"{self.weight_bits}-bit weights"
        sign = "unsigned" if self.unsigned else "signed"
        activation = f"{sign} {self.activation_bits}-bit activations"
        activation = "activations as they are" if self.activation_bits is None else activation
        later = " after `start`" * self.waiting
        return f"{super().extra_repr()}, {weight}, {activation}{later}"

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.loaded()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # pyright: ignore[reportAttributeAccessIssue]
        self.__dict__.setdefault("never_negative", self.unsigned)  # pickled by version 0.1
        self.__dict__.setdefault("left_out", None)
        self.__dict__.setdefault("edge_gradient", "full")
        self.__dict__.setdefault("scales", "calibrated")
        self.__dict__.setdefault("waiting", False)
        self.loaded()


@uncompiled
def _is_measurable(x: Tensor) -> bool:
    """Whether `x` is to be measured; if so, DDP is told to leave the averages to this rank.

    The recomputation of a checkpointed forward, which runs in the backward pass, isn't measured again.

    Raises:
        SurgeryError: a transform of torch.func runs, which can't change buffers.
    """
    if torch._C._functorch.is_functorch_wrapped_tensor(x):
        raise SurgeryError(
            "a layer that calibrates can't measure its input within torch.func.grad or vmap; call "
            "set_activation_bounds before, or model.eval()"
        )
    if x.numel() == 0 or torch._C._current_graph_task_id() != -1:
        return False
    leave_to_this_rank()
    return True
