"""The tensors of one quantized layer, in the layout that bitsandbytes' own layers write, and back.

4 bits: `weight` (ceil(out in / 2), 1) uint8, `weight.absmax`, `weight.quant_map` (the 16 values), with double
quantization `weight.nested_absmax` and `weight.nested_quant_map`, and `weight.quant_state.bitsandbytes__nf4`
(or fp4): JSON, as bytes, of the block sizes, the shape, the dtype and the mean of the absmax values. 8 bits:
`weight` (out, in) int8, `SCB` (out) float32, the absmax of the rows, and `weight_format`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cadenza.models.errors import ModelError
from cadenza.quantization.stored.formats import BLOCK, FORMATS, NESTED_BLOCK, FourBit
from cadenza.quantization.stored.int8 import as_bits, as_floats

FOUR_BIT = {name: (f.codebook, f.nested) for name, f in FORMATS.items() if isinstance(f, FourBit)}
LIBRARY = (*FOUR_BIT, "int8")  # the formats that bitsandbytes has
STATE = "weight.quant_state.bitsandbytes__"
PARTS = (
    *("absmax", "quant_map", "nested_absmax", "nested_quant_map"),
    *("quant_state.bitsandbytes__nf4", "quant_state.bitsandbytes__fp4"),
)
ROW_MAJOR = 0  # `weight_format`


def to_library(layer: Any) -> dict[str, Tensor]:
    """The tensors of a `Quantized` layer under the library's names, without the layer's path."""
    codes, absmax, *nested = layer._stored()
    if layer.storage == "int8":
        kind = torch.tensor(ROW_MAJOR, dtype=torch.uint8)
        return {"weight": codes.view(layer.shape), "SCB": as_floats(absmax), "weight_format": kind}
    name, double = FOUR_BIT[layer.storage]
    options: dict[str, Any] = {"dtype": layer.weight_dtype, "blocksize": BLOCK, "quant_type": name}
    if double:
        options["offset"], options["state2"] = as_floats(nested[1]), _nested(as_floats(nested[0]))
    stats = absmax if double else as_floats(absmax)
    state = _functional().QuantState(stats, layer.shape, _values(name), **options)
    return {"weight": codes, **{f"weight.{key}": value for key, value in state.as_dict(packed=True).items()}}


def from_library(path: str, tensors: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """The format and the buffers of the layer at `path`, whose library's `tensors` are given.

    Raises:
        ModelError: the tensors are incomplete, or of another block size or code than the formats here.
    """
    if "SCB" in tensors:
        return "int8", _eight_bit(path, tensors)
    stats = {key.removeprefix("weight."): tensor for key, tensor in tensors.items() if key != "weight"}
    try:
        state = _functional().QuantState.from_dict(stats, torch.device("cpu"))
    except (AssertionError, KeyError, ValueError) as error:
        raise ModelError(f"load: {path}: its quantization state can't be read: {error!r}") from error
    _refuse_other_code(path, state)
    format = next(name for name, kind in FOUR_BIT.items() if kind == (state.quant_type, state.nested))
    codes = tensors["weight"].contiguous().view(torch.uint8).reshape(-1, 1)  # FSDP's storage is of floats
    name = f"{state.quant_type}_absmax"
    if not state.nested:
        return format, {"weight": codes, name: as_bits(state.absmax)}
    mean, nested = as_bits(state.offset), as_bits(state.state2.absmax)
    return format, {"weight": codes, name: state.absmax, f"nested_{name}": nested, f"{name}_mean": mean}


def is_statistic(key: str) -> bool:
    """Whether `key` of a state dict is of a quantized layer, but not its weight."""
    return key.endswith(tuple(f".weight.{part}" for part in PARTS)) or key.endswith(
        (".SCB", ".weight_format")
    )


def _eight_bit(path: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    codes, kind = tensors["weight"], tensors.get("weight_format")
    if codes.dtype != torch.int8 or (kind is not None and int(kind) != ROW_MAJOR):
        right = "convert it with a current version of bitsandbytes"
        raise ModelError(f"load: {path}: its int8 weight isn't stored row by row; {right}")
    return {"weight": codes[..., None], "int8_absmax": as_bits(tensors["SCB"])}


def _refuse_other_code(path: str, state: Any) -> None:
    """Raise if codes mean other numbers than in the formats here."""
    same = state.blocksize == BLOCK and torch.equal(state.code, _values(state.quant_type))
    if state.nested:
        inner = state.state2
        same = same and inner.blocksize == NESTED_BLOCK and torch.equal(inner.code, _nested_values())
    if not same:
        blocks = f"blocks of {state.blocksize}"
        right = f"only bitsandbytes' own values in blocks of {BLOCK} are, absmax values in {NESTED_BLOCK}"
        raise ModelError(f"load: {path}: {state.quant_type} in {blocks} can't be read; {right}")


def _nested(absmax: Tensor) -> Any:
    return _functional().QuantState(
        absmax, code=_nested_values(), blocksize=NESTED_BLOCK, dtype=torch.float32
    )


def _values(name: str) -> Tensor:
    return _functional().get_4bit_type(name, device="cpu").clone()  # a file can't hold a tensor twice


def _nested_values() -> Tensor:
    return _functional().create_dynamic_map()


def _functional() -> Any:
    import bitsandbytes.functional

    return bitsandbytes.functional
