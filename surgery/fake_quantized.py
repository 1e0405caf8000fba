"""A layer that computes with quantized weights and inputs, and trains in floating point."""

from typing import Any

import torch
from torch import Tensor, nn

from cadenza.surgery.fake_quant import quantize, quantize_weight, step_of

BUFFERS = ("input_averages", "input_batches", "calibrated")
DECAY = 0.1  # the share of a new batch in the moving averages


class FakeQuantized:
    """The mixin of an `nn.Conv1d`, `2d`, `3d` or `nn.Linear`; its weight stays the parameter that it was.

    While it is `calibrating`, its inputs are left as they are, and each batch in train mode adds to moving
    averages of their maxima and minima. Then the larger of the two is the bound of their codes, for good.

    Attributes of the module: `weight_bits` and `activation_bits` (None: left as they are), `unsigned`
    (whether inputs are never negative), and `calibrating`, which repeats the buffer `calibrated` where no
    device has to be asked. The averages are float32 numbers kept as their bits, which casts of a
    model leave alone.
    """

    def forward(self, input: Tensor) -> Tensor:
        self.__dict__["weight"] = self._quantized_weight()  # seen by the stock forward before the parameter
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
        return quantize(x, self.input_step(), self.activation_bits, not self.unsigned)

    def observe(self, x: Tensor) -> None:
        """Take the maxima and minima of `x` into the averages."""
        axis = x.ndim - 1 - self._spatial
        over = [d for d in range(x.ndim) if d != axis or self.averages.shape[1] == 1]
        high = x.amax(over)
        low = torch.zeros_like(high) if self.unsigned else x.amin(over)
        self.averages.lerp_(torch.stack([high, low]).view_as(self.averages).float(), DECAY)
        self.input_batches += 1

    @property
    def averages(self) -> Tensor:
        """(2, channels or 1) float32: the moving averages of maxima and minima, from zero on."""
        return self.input_averages.view(torch.float32)

    def input_step(self) -> Tensor:
        """The step of the inputs' codes, (channels or 1, 1, ...), which goes with them from the right.

        Averages that start at zero fall short by a known share, as Adam's do.
        """
        share = 1 - (1 - DECAY) ** self.input_batches.float()
        bound = self.averages.abs().amax(0) / share
        return step_of(bound, self.activation_bits, not self.unsigned).view(-1, *[1] * self._spatial)

    def set_bound(self) -> None:
        """End the calibration."""
        self.calibrated.fill_(True)
        self.calibrating = False

    def refresh(self) -> None:
        """Take note of what was loaded into the buffers."""
        if self.activation_bits is not None:
            self.calibrating = not bool(self.calibrated)

    @property
    def _spatial(self) -> int:
        """The input's dimensions after its channels."""
        return 0 if isinstance(self, nn.Linear) else self.weight.ndim - 2

    def extra_repr(self) -> str:
        weight = "weights as they are" if self.weight_bits is None else f"{self.weight_bits}-bit weights"
        sign = "unsigned" if self.unsigned else "signed"
        inputs = (
            "activations as they are"
            if self.activation_bits is None
            else f"{sign} {self.activation_bits}-bit activations"
        )
        return f"{super().extra_repr()}, {weight}, {inputs}"

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.refresh()


def new_averages(module: Any, per_channel: bool) -> dict[str, Tensor]:
    """The buffers of a layer that begins to calibrate."""
    channels = module.in_features if isinstance(module, nn.Linear) else module.in_channels
    zeros = torch.zeros(2, channels if per_channel else 1, dtype=torch.int32, device=module.weight.device)
    count, done = (zeros.new_zeros((), dtype=dtype) for dtype in (torch.int64, torch.bool))
    return dict(zip(BUFFERS, (zeros, count, done), strict=True))
