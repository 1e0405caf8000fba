"""A network that was trained with quantization, as integers and scales."""

import copy
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from cadenza.surgery.errors import CheckpointError, SurgeryError
from cadenza.surgery.fake_quant import codes, weight_step
from cadenza.surgery.fake_quantized import FakeQuantized

Integers = dict[str, Tensor]
PACKED_BITS = 4  # so many or fewer: two codes in a byte


def convert(model: nn.Module) -> Integers:
    """The state dict of `model` with integers in place of the weights of its quantized layers.

    A layer's `weight` is int8, or, of 4 bits and fewer, uint8 with two codes in a byte, each plus 8, the
    first in the low half. Beside it stand `weight_scale` (out,), and of quantized inputs `input_scale`
    (channels or 1,), as float32: a weight is its code times the scale of its output channel, an input its
    code times that of its input channel. Codes of inputs are rounded to the nearest and clipped
    symmetrically, or, where `input_unsigned`, rounded down and clipped at 0 and 2^bits - 1. All else is as
    in the state dict. `model` is left as it is.

    Raises:
        SurgeryError: there's nothing quantized in `model`, or it still calibrates.
    """
    layers = _layers(model)
    state: Integers = {key: value.detach().clone() for key, value in model.state_dict().items()}
    for path, layer in layers.items():
        if layer.calibrating:
            raise SurgeryError(
                f"{path} still calibrates; convert after calibrate_until, or call set_activation_bounds"
            )
        prefix = f"{path}." if path else ""
        if layer.weight_bits is not None:
            state |= {prefix + name: value for name, value in _weight(layer).items()}
        if layer.activation_bits is not None:
            state |= {prefix + name: value for name, value in _input(layer).items()}
    return state


def load_converted(model: nn.Module, integers: Integers) -> None:
    """Fill a model after the same surgery with what `convert` gave; it then computes with these integers.

    A layer whose weight another module holds, too, such as a tied head, gets one of its own.

    Raises:
        CheckpointError: they are of another network, or of one quantized otherwise. Nothing is loaded then.
    """
    state = dict(integers)
    for path, layer in _layers(model).items():
        prefix = f"{path}." if path else ""
        scale, packed = state.pop(f"{prefix}weight_scale", None), state.get(f"{prefix}weight")
        for name in ("input_scale", "input_unsigned"):
            state.pop(prefix + name, None)
        if (scale is None) != (layer.weight_bits is None) or packed is None:
            raise CheckpointError(f"{path} is not in the integers as it is in the model: {layer}")
        if scale is not None:
            state[f"{prefix}weight"] = _unpacked(path, packed, scale, layer)
    wrong = [k for k, v in model.state_dict().items() if k not in state or state[k].shape != v.shape]
    wrong += [k for k in state if k not in model.state_dict()]
    if wrong:
        raise CheckpointError(f"the integers are of another network: {wrong[0]} doesn't fit")
    _untie(model)
    model.load_state_dict(state)


def check_converted(model: nn.Module, integers: Integers, *inputs: Any, tolerance: float = 1e-4) -> float:
    """The difference between `model` and a copy that was filled with `integers`, in eval mode on `inputs`.

    It is the largest one over the largest output: some epsilons of float32, by which a scale is rounded.

    Raises:
        SurgeryError: it is beyond `tolerance`.
    """
    copied, modes = copy.deepcopy(model).eval(), [(m, m.training) for m in model.modules()]
    load_converted(copied, integers)
    try:
        with torch.no_grad():
            expected, found = _tensor(model.eval()(*inputs)), _tensor(copied(*inputs))
    finally:
        for module, training in modes:
            module.training = training
    off = float((expected - found).abs().max() / expected.abs().max())
    if not off <= tolerance:
        raise SurgeryError(
            f"the converted network is off by {off:.2g} of the largest output, beyond {tolerance:g}"
        )
    return off


def unpack(packed: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The codes (int8) of a weight of `shape` in 4 bits or fewer, from pairs in bytes."""
    pairs = torch.stack([packed & 15, packed >> 4], dim=-1).flatten()
    return pairs[: torch.Size(shape).numel()].view(shape).to(torch.int8) - 8


def _layers(model: nn.Module) -> dict[str, Any]:
    layers = {path: m for path, m in model.named_modules() if isinstance(m, FakeQuantized)}
    if not layers:
        raise SurgeryError(f"{type(model).__name__} has no layer with quantization_aware_training")
    return layers


def _untie(model: nn.Module) -> None:
    owners = Counter(id(p) for module in model.modules() for p in module._parameters.values())
    for layer in _layers(model).values():
        if layer.weight_bits is not None and owners[id(layer.weight)] > 1:
            layer.weight = nn.Parameter(layer.weight.detach().clone(), layer.weight.requires_grad)


def _weight(layer: Any) -> Integers:
    step = weight_step(layer.weight, layer.weight_bits)
    whole = codes(layer.weight.detach(), step, layer.weight_bits, signed=True).to(torch.int8)
    packed = _pack(whole) if layer.weight_bits <= PACKED_BITS else whole
    return {"weight": packed, "weight_scale": step.flatten().float()}


def _input(layer: Any) -> Integers:
    unsigned = torch.tensor(layer.unsigned)
    return {"input_scale": layer.input_step().detach().flatten().clone(), "input_unsigned": unsigned}


def _pack(whole: Tensor) -> Tensor:
    flat = (whole.flatten() + 8).to(torch.uint8)
    flat = torch.cat([flat, flat.new_full((flat.numel() % 2,), 8)])
    return flat[::2] | flat[1::2] << 4


def _unpacked(path: str, packed: Tensor, scale: Tensor, layer: Any) -> Tensor:
    shape, small = tuple(layer.weight.shape), layer.weight_bits <= PACKED_BITS
    size = (-(-layer.weight.numel() // 2),) if small else shape
    kind = torch.uint8 if small else torch.int8
    if tuple(packed.shape) != size or packed.dtype != kind:
        found = f"{packed.dtype}, {tuple(packed.shape)}"
        raise CheckpointError(f"{path}.weight is {found}; in {layer.weight_bits} bits it is {kind}, {size}")
    whole = unpack(packed, shape) if small else packed
    return whole.to(layer.weight.dtype) * scale.to(layer.weight.dtype).view(-1, *[1] * (len(shape) - 1))


def _tensor(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output.logits
