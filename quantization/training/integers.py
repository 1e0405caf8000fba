"""A network that was trained with quantization, as integers and scales.

1. `convert` returns a state dict with integers in place of the weights of quantized layers.
2. `load_converted` multiplies the integers by their scales and loads the products as weights.
3. `check_converted` compares the outputs of the network before `convert` and after `load_converted`.

The obvious way is to return a model of integer layers. No kernel here multiplies integers of 4 bits, so it
would compute in floating point anyway.
"""

import copy
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from cadenza.probes.untouched import untouched
from cadenza.quantization.training.fake_quantize import EPSILON, codes, qmax, scale_of
from cadenza.quantization.training.fake_quantized import FakeQuantized
from cadenza.surgery.errors import CheckpointError, SurgeryError

Integers = dict[str, Tensor]
PACKED_BITS = 4  # with these bits or fewer, two codes are packed into a byte


def convert(model: nn.Module, unmeasured: bool = False) -> Integers:
    """The state dict of `model` with integers in place of the weights of its quantized layers.

    A layer's `weight` is int8; in 4 bits or fewer it is uint8 with two codes in a byte, each plus 8, the
    first one in the low half. Beside it are `weight_scale` (out,) and, for quantized inputs, `input_scale`
    (channels or 1,), both float32: a number is its code times the scale of its channel. Codes of inputs are
    rounded to the nearest and clipped symmetrically or, if `input_unsigned`, rounded down and clipped at 0
    and 2^bits - 1. With learned scales they are rounded to the nearest there, too. Other entries are those of
    the state dict, and `model` stays unchanged.

    Args:
        model: the network.
        unmeasured: whether to convert layers that training never called. Their inputs have no bounds, so they
            get no `input_scale` and compute with inputs as they are.

    Raises:
        SurgeryError: `model` has no quantized layer, or one that waits for its start, still calibrates or was
            never called.
    """
    layers = _layers(model)
    state: Integers = {key: value.detach().clone() for key, value in model.state_dict().items()}
    for path, layer in layers.items():
        if layer.waiting:
            raise SurgeryError(f"{path} still computes in full precision; convert after start")
        if layer.calibrating:
            _require_bounds(path, layer, unmeasured)
        prefix = f"{path}." if path else ""
        state |= {prefix + name: value for name, value in _entries(layer).items()}
    return state


def load_converted(model: nn.Module, integers: Integers) -> None:
    """Load the result of `convert` into a model after the same surgery, which then computes with it.

    A layer that shares its weight with another module, such as a tied head, gets a weight of its own.

    Raises:
        CheckpointError: the integers are of another network or quantization. Nothing is loaded then.
    """
    state = dict(integers)
    for path, layer in _layers(model).items():
        prefix = f"{path}." if path else ""
        scale, packed = state.pop(f"{prefix}weight_scale", None), state.get(f"{prefix}weight")
        for name in ("input_scale", "input_unsigned"):
            state.pop(prefix + name, None)
        if (scale is None) != (layer.weight_bits is None) or packed is None:
            raise CheckpointError(f"{path}: weight and weight_scale in the integers don't fit {layer}")
        if scale is not None:
            state[f"{prefix}weight"] = _dequantized(path, packed, scale, layer)
    wrong = [k for k, v in model.state_dict().items() if k not in state or state[k].shape != v.shape]
    wrong += [k for k in state if k not in model.state_dict()]
    if wrong:
        raise CheckpointError(f"the integers are of another network: {wrong[0]} doesn't fit")
    _untie(model)
    model.load_state_dict(state)


def check_converted(model: nn.Module, integers: Integers, *inputs: Any, tolerance: float = 1e-4) -> float:
    """The relative difference of outputs between `model` and a copy of it with `integers` loaded.

    Both run in eval mode on `inputs`. The difference is the largest one over the largest output. Loaded
    weights are quantized to the same numbers. So the difference is 0 in dtypes up to float32, and some
    epsilons of float32, the dtype of scales, in float64.

    Raises:
        SurgeryError: the difference is greater than `tolerance`, or the outputs don't tell.
    """
    with untouched(model), torch.no_grad():
        expected = _tensor(model.eval()(*inputs))
        copied = copy.deepcopy(model)
        load_converted(copied, integers)
        found = _tensor(copied(*inputs))
    if expected.numel() == 0 or not expected.isfinite().all():
        raise SurgeryError("the network's outputs are empty or not finite; check it on other inputs")
    error, largest = float((expected - found).abs().max()), float(expected.abs().max())
    error = error and error / max(largest, torch.finfo(expected.dtype).tiny)  # outputs may all be zero
    if not error <= tolerance:
        raise SurgeryError(
            f"the converted network is off by {error:.2g} of the largest output, beyond {tolerance:g}"
        )
    return error


def unpack(packed: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The codes (int8) of a weight of `shape` in 4 bits or fewer; `packed` holds two in each byte."""
    pairs = torch.stack([packed & 15, packed >> 4], dim=-1).flatten()
    return pairs[: torch.Size(shape).numel()].view(shape).to(torch.int8) - 8


def _layers(model: nn.Module) -> dict[str, Any]:
    layers = {path: m for path, m in model.named_modules() if isinstance(m, FakeQuantized)}
    if not layers:
        raise SurgeryError(f"{type(model).__name__} has no layer with quantization_aware_training")
    for layer in layers.values():
        layer.loaded()  # in an average of models the buffers change, but no flag
    return layers


def _require_bounds(path: str, layer: Any, unmeasured: bool) -> None:
    """Raise for a layer that calibrates, but not for one that was never called if `unmeasured`."""
    if layer.input_batches:
        raise SurgeryError(
            f"{path} still calibrates; convert after calibrate_until, or call set_activation_bounds"
        )
    if not unmeasured:
        raise SurgeryError(
            f"{path} has seen no batch in train mode, so its inputs have no bounds; train it, or convert it "
            "with inputs as they are: convert(model, unmeasured=True)"
        )


def _untie(model: nn.Module) -> None:
    owners = Counter(id(p) for module in model.modules() for p in module._parameters.values())
    for layer in _layers(model).values():
        if layer.weight_bits is not None and owners[id(layer.weight)] > 1:
            layer.weight = nn.Parameter(layer.weight.detach().clone(), layer.weight.requires_grad)


def _entries(layer: Any) -> Integers:
    """The integers and scales of a layer, by the names of its entries in the state dict."""
    entries: Integers = {}
    if layer.weight_bits is not None:
        scale = layer.weight_scale()
        integers = codes(layer.weight.detach(), scale.detach(), layer.weight_bits, signed=True).to(torch.int8)
        entries["weight"] = _pack(integers) if layer.weight_bits <= PACKED_BITS else integers
        entries["weight_scale"] = scale.detach().flatten().float().clone()
    if layer.activation_bits is not None and not layer.calibrating:
        entries["input_scale"] = layer.input_scale().detach().flatten().float().clone()
        entries["input_unsigned"] = torch.tensor(layer.unsigned)
    return entries


def _pack(integers: Tensor) -> Tensor:
    flat = (integers.flatten() + 8).to(torch.uint8)
    flat = torch.cat([flat, flat.new_full((flat.numel() % 2,), 8)])  # padded with the code 0
    return flat[::2] | flat[1::2] << 4


def _dequantized(path: str, packed: Tensor, scale: Tensor, layer: Any) -> Tensor:
    shape, is_packed = tuple(layer.weight.shape), layer.weight_bits <= PACKED_BITS
    size = (-(-layer.weight.numel() // 2),) if is_packed else shape
    dtype = torch.uint8 if is_packed else torch.int8
    if tuple(packed.shape) != size or packed.dtype != dtype:
        found = f"{packed.dtype}, {tuple(packed.shape)}"
        raise CheckpointError(f"{path}.weight is {found}; in {layer.weight_bits} bits it is {dtype}, {size}")
    integers = unpack(packed, shape) if is_packed else packed
    if layer.scales == "learned":  # the scale isn't computed from the weight
        return (integers * scale.float().view(-1, *[1] * (len(shape) - 1))).to(layer.weight.dtype)
    return _weights(integers, scale, layer.weight_bits, layer.weight.dtype)


def _weights(integers: Tensor, scale: Tensor, bits: int, dtype: torch.dtype) -> Tensor:
    """Weights in `dtype` that are quantized to `integers` and `scale` again, so that outputs stay the same.

    The largest code of a channel becomes the bound that its scale came from. Its code times the scale would
    be larger, and so would the scale of the loaded weight; in bfloat16 that moves codes.
    """
    each, largest = (-1, *[1] * (integers.ndim - 1)), integers.abs().flatten(1).amax(1)
    products = (integers * scale.float().view(each)).to(dtype)
    bounds = integers.sign() * _bound(scale.float(), bits).to(dtype).view(each)
    return torch.where(integers.abs() == largest.view(each), bounds, products)


def _bound(scale: Tensor, bits: int) -> Tensor:
    """The bounds (out,) whose `scale_of` is `scale`, all float32."""
    nearest = (scale.double() * qmax(bits) - EPSILON).clamp(min=0).float()
    up, down = (nearest.nextafter(nearest.new_tensor(end)) for end in (torch.inf, 0.0))
    found = torch.stack([nearest, up, down])
    fits = scale_of(found, bits, signed=True) == scale
    return found.gather(0, fits.int().argmax(0, keepdim=True))[0]


def _tensor(output: Any) -> Tensor:
    found = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if found is None:
        raise SurgeryError(f"the network returns a {type(output).__name__}; a tensor or logits are compared")
    return found
