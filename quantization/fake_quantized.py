"""A layer that computes with quantized weights and inputs, and trains in floating point.

1. While `calibrating`, a forward in train mode updates moving averages of the maxima and minima of the input.
2. After `set_bound`, the input is quantized. Its bound is the larger of the two averages, and stays fixed.
3. The weight is quantized in every forward; its gradient reaches the stock parameter.
4. The stock forward of the layer runs on both.

The obvious way is a new layer that calls `F.linear` or `F.conv2d`. Here the quantized weight is put into the
`__dict__` of the module during the call, where the stock forward finds it before the parameter. So padding
modes, groups and other mixins keep working, but two threads can't call the same layer at once.
"""

from typing import Any

import torch
from torch import Tensor, nn

from cadenza.quantization.fake_quantize import quantize, quantize_weight, scale_of
from cadenza.surgery.retype import Mixin, Stage

BUFFERS = ("input_averages", "input_batches", "calibrated")
DECAY = 0.1  # the weight of a new batch in the moving averages


class FakeQuantized(Mixin, of="quantization_aware_training", stage=Stage.QUANTIZE):
    """The mixin of an `nn.Linear`, `nn.Conv1d`, `nn.Conv2d` or `nn.Conv3d`.

    Attributes of the module: `weight_bits` and `activation_bits` (None: not quantized), `unsigned` (whether
    inputs are never negative), and `calibrating`, a copy of the buffer `calibrated` that can be read without
    waiting for the device. The averages are float32 numbers stored as the bits of int32, so that casts of a
    model don't round them.
    """

    def forward(self, input: Tensor) -> Tensor:
        self.__dict__["weight"] = self._quantized_weight()
        try:
            return super().forward(self._quantized_input(input))
        finally:
            del self.__dict__["weight"]

    def _quantized_weight(self) -> Tensor:
        return self.weight if self.weight_bits is None else quantize_weight(self.weight, self.weight_bits)

    def _quantized_input(self, x: Tensor) -> Tensor:
        if self.activation_bits is None:
            return x
        if self.calibrating:
            if self.training and torch.is_grad_enabled():
                self.observe(x.detach())
            return x
        return quantize(x, self.input_scale(), self.activation_bits, not self.unsigned)

    def observe(self, x: Tensor) -> None:
        """Add the maxima and minima of `x` to the averages."""
        channel_dim = x.ndim - 1 - self._spatial_dims
        over = [d for d in range(x.ndim) if d != channel_dim or self.averages.shape[1] == 1]
        high = x.amax(over)  # (channels,) or ()
        low = torch.zeros_like(high) if self.unsigned else x.amin(over)
        self.averages.lerp_(torch.stack([high, low]).view_as(self.averages).float(), DECAY)
        self.input_batches += 1

    @property
    def averages(self) -> Tensor:
        """(2, channels or 1) float32: the moving averages of maxima and minima, which start at zero."""
        return self.input_averages.view(torch.float32)

    def input_scale(self) -> Tensor:
        """The scale of the input, (channels or 1, 1, ...), which broadcasts to the input from the right.

        The averages are corrected for their start at zero, as in Adam.
        """
        correction = 1 - (1 - DECAY) ** self.input_batches.float()
        bound = self.averages.abs().amax(0) / correction
        return scale_of(bound, self.activation_bits, not self.unsigned).view(-1, *[1] * self._spatial_dims)

    def set_bound(self) -> None:
        """End the calibration."""
        self.calibrated.fill_(True)
        self.calibrating = False

    def refresh(self) -> None:
        """Update `calibrating` after the buffers were loaded."""
        if self.activation_bits is not None:
            self.calibrating = not bool(self.calibrated)

    @property
    def _spatial_dims(self) -> int:
        """The number of dimensions of the input after its channels."""
        return 0 if isinstance(self, nn.Linear) else self.weight.ndim - 2

    def extra_repr(self) -> str:
        weight = "weights as they are" if self.weight_bits is None else f"{self.weight_bits}-bit weights"
        sign = "unsigned" if self.unsigned else "signed"
        activation = f"{sign} {self.activation_bits}-bit activations"
        activation = "activations as they are" if self.activation_bits is None else activation
        return f"{super().extra_repr()}, {weight}, {activation}"

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.refresh()


def new_averages(module: Any, per_channel: bool) -> dict[str, Tensor]:
    """The buffers of a layer at the start of its calibration."""
    channels = module.in_features if isinstance(module, nn.Linear) else module.in_channels
    zeros = torch.zeros(2, channels if per_channel else 1, dtype=torch.int32, device=module.weight.device)
    batches, calibrated = (zeros.new_zeros((), dtype=dtype) for dtype in (torch.int64, torch.bool))
    return dict(zip(BUFFERS, (zeros, batches, calibrated), strict=True))
