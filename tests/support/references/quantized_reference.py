"""Layers in few bits, written plainly as AQT has them, for float64."""

import torch
from torch import nn

from cadenza.quantization.training.fake_quantize import EPSILON

LAYERS = {
    "linear": (lambda: nn.Linear(7, 5), (3, 11, 7)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, padding=1), (2, 4, 9)),
    "conv2d": (lambda: nn.Conv2d(4, 6, (3, 1), stride=2, padding=(2, 0), bias=False), (2, 4, 7, 5)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2, dilation=2), (3, 4, 9, 8)),
    "reflected": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (2, 4, 6, 6)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2), (2, 2, 3, 4, 5)),
}


def made(kind, dtype=torch.float64):
    torch.manual_seed(0)
    build_layer, shape = LAYERS[kind]
    return nn.Sequential(build_layer()).to(dtype), torch.randn(shape, dtype=dtype)


def axes_but(x, axis):
    return [d for d in range(x.ndim) if d != axis % x.ndim]


def plain_codes(x, bound, bits, signed):
    """Scaled, clipped and rounded as AQT writes it; `bound` broadcasts."""
    if signed:
        most = 2 ** (bits - 1) - 1
        return torch.floor((x * most / (bound + EPSILON)).clamp(-most, most) + 0.5), (bound + EPSILON) / most
    scale = 2**bits / (bound + EPSILON)
    return torch.floor(x * scale).clamp(0, 2**bits - 1), 1 / scale


def plain_weight(weight, bits):
    bound = weight.abs().amax(axes_but(weight, 0), keepdim=True)
    whole, step = plain_codes(weight, bound, bits, signed=True)
    return whole * step


def plain_forward(layer, weight, x):
    """The layer's own operation with this weight."""
    return torch.func.functional_call(layer, {"weight": weight}, (x,))


class Reference:
    """A layer before, at and after the switch, in plain float64, with gradients by hand."""

    def __init__(self, layer, bits, per_channel, unsigned):
        self.layer, self.bits, self.unsigned, self.per_channel = layer, bits, unsigned, per_channel
        self.axis = -1 if isinstance(layer, nn.Linear) else 1
        self.high = self.low = torch.zeros(1)
        self.batches, self.frozen = 0, None

    def observe(self, x):
        over = axes_but(x, self.axis) if self.per_channel else list(range(x.ndim))
        self.high = 0.9 * self.high + 0.1 * x.amax(over, keepdim=True)
        self.low = 0.9 * self.low + 0.1 * (0 if self.unsigned else x.amin(over, keepdim=True))
        self.batches += 1

    def bound(self):
        share = 1 - 0.9**self.batches
        return torch.maximum(self.high.abs(), torch.as_tensor(self.low).abs()) / share

    def __call__(self, x, grad):
        """The output, and the gradients of input and weight where `grad` is the output's."""
        bits, signed = self.bits, not self.unsigned
        weight = plain_weight(self.layer.weight.detach(), bits).requires_grad_()
        inside = torch.ones_like(x)
        if self.frozen is None:
            entering = x.detach().clone()
        else:
            whole, step = plain_codes(x, self.frozen, bits, signed)
            entering = whole * step
            inside = ((x.abs() if signed else x) <= self.frozen + EPSILON).to(x)
        entering.requires_grad_()
        out = plain_forward(self.layer, weight, entering)
        out.backward(grad)
        return out.detach(), entering.grad * inside, weight.grad
