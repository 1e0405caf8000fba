"""What a stock layer gets so that it trains in few bits: buffers, scales, flags and the mixin."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from cadenza.quantization.training.averages import new_averages
from cadenza.quantization.training.fake_quantized import FakeQuantized
from cadenza.quantization.training.learned_scales import initial_weight_scale
from cadenza.surgery.parameters import add_buffers, add_parameters, set_attributes
from cadenza.surgery.retype import Undo, mix


def quantize_layer(
    module: Any,
    weight_bits: int | None,
    activation_bits: int | None,
    granularity: str,
    never_negative: bool,
    edge_gradient: str,
    scales: str,
    waiting: bool,
) -> Iterator[Undo]:
    """The edits that make `module`, a linear layer or a convolution, a `FakeQuantized` one.

    Args:
        granularity: `per_channel` or `per_tensor`, of the bounds of inputs.
        waiting: whether it computes in full precision until `start_quantization`. Only then it has the buffer
            `started`, so that state dicts of other layers are as in earlier versions.

    The other arguments are attributes of `FakeQuantized`.
    """
    groups = getattr(module, "groups", 1)
    channels = module.weight.shape[1] * groups if granularity == "per_channel" else 1
    if activation_bits is not None:
        yield add_buffers(module, new_averages(channels, module.weight.device))
    if waiting:
        yield add_buffers(module, {"started": new_averages(1, module.weight.device)["calibrated"]})
    if scales == "learned":
        yield add_parameters(module, _new_scales(module, weight_bits, activation_bits, channels))
    yield set_attributes(module, weight_bits=weight_bits, activation_bits=activation_bits, left_out=None)
    yield set_attributes(module, never_negative=never_negative, unsigned=never_negative)
    yield set_attributes(module, edge_gradient=edge_gradient, scales=scales)
    yield set_attributes(module, calibrating=activation_bits is not None, waiting=waiting)
    yield mix(module, FakeQuantized)


def _new_scales(
    module: Any, weight_bits: int | None, activation_bits: int | None, channels: int
) -> dict[str, nn.Parameter]:
    """The parameters of a layer's scales, which train if its weight does."""
    found: dict[str, Tensor] = {}
    like = module.weight.detach()
    if weight_bits is not None:
        found["learned_weight_scale"] = initial_weight_scale(like, weight_bits)
    if activation_bits is not None:
        found["input_scale_factor"] = like.new_ones(channels)
    return {name: nn.Parameter(data, module.weight.requires_grad) for name, data in found.items()}
