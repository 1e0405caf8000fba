"""Layers of codes that stand for `FakeQuantized` ones while torch.onnx traces: they emit Q and DQ nodes.

A layer computes what the quantized layer does, in these operations of ONNX:

1. Its input becomes uint8, since x86 CPUs multiply unsigned by signed numbers fastest. Signed codes have the
   zero point 128. Unsigned codes are rounded down, and QuantizeLinear rounds to the nearest, so half a scale
   is subtracted before. With learned scales they are the nearest, as those of QuantizeLinear.
2. Signed codes are clipped to those of training: no code -128, and fewer in fewer bits. Unsigned codes of
   fewer than 8 bits are the high bits of a code of 8, whose low bits become zero. So the scale is that of 8
   bits, and with it the unit of a bias.
3. DequantizeLinear gives the numbers that the layer multiplies; a runtime fuses it with the product.

Torch runs these modules on zeros: an operation of ONNX has no value in torch. Only the graph is of use.
"""

from typing import Any

import torch
from torch import Tensor, nn

from cadenza.quantization.training.fake_quantize import codes, qmax
from cadenza.quantization.training.fake_quantized import FakeQuantized
from cadenza.surgery.retype import stock_class

OPSET = 21  # the first with 4-bit integers
ZERO_POINT = 128


class IntegerLayer(nn.Module):
    """A linear layer or convolution of codes; `layer` is `FakeQuantized` and has its bounds."""

    layer: Any
    weight_scale: Any
    input_scale: Any
    zero_point: Any
    lowest: Any
    highest: Any
    mask: Any

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.__dict__["layer"] = layer  # not a child, whose weight would go into the file
        self.is_linear = isinstance(layer, nn.Linear)
        self.bias = layer.bias
        self.weight = layer.weight if layer.weight_bits is None else None
        if layer.weight_bits is not None:
            scale = layer.weight_scale().detach()
            integers = codes(layer.weight.detach(), scale, layer.weight_bits, signed=True).to(torch.int8)
            self.register_buffer(f"codes{layer.weight_bits}", integers.t() if self.is_linear else integers)
            self.register_buffer("weight_scale", scale.flatten().float())
        if layer.activation_bits is not None:
            scale = layer.input_scale().detach().flatten() / (2 ** self._low_bits())
            zeros = torch.full_like(scale, 0 if layer.unsigned else ZERO_POINT, dtype=torch.uint8)
            one = scale.numel() == 1
            self.register_buffer("input_scale", scale[0].clone() if one else scale)
            self.register_buffer("zero_point", zeros[0].clone() if one else zeros)
            most = qmax(layer.activation_bits)
            limits = {"lowest": ZERO_POINT - most, "highest": ZERO_POINT + most, "mask": self._mask()}
            for name, code in limits.items():
                self.register_buffer(name, torch.tensor(code, dtype=torch.uint8))

    def _low_bits(self) -> int:
        """The bits of an unsigned code of 8 bits that training doesn't have."""
        return 8 - self.layer.activation_bits if self.layer.unsigned else 0

    def _mask(self) -> int:
        """The high bits of a code, set: 0xF0 in four bits."""
        return 256 - 2 ** self._low_bits()

    def _shift(self) -> float:
        """What is subtracted from unsigned numbers, in scales of 8 bits, before they are rounded."""
        return 0.5 if self.layer.rounds_down else (1 - 2 ** self._low_bits()) / 2

    def forward(self, input: Tensor) -> Tensor:
        """(batch, channels, ...) or (..., channels) to the shape of the stock layer's output."""
        x = input if self.layer.activation_bits is None else self._quantized(input)
        weight = self._weight()
        if not self.is_linear:
            return stock_class(self.layer)._conv_forward(self.layer, x, weight, self.bias)
        product = x @ weight  # (..., out)
        return product if self.bias is None else product + self.bias

    def _quantized(self, x: Tensor) -> Tensor:
        axis = {} if self.input_scale.ndim == 0 else {"axis": x.ndim - 1 if self.is_linear else 1}
        if self.layer.unsigned and (shift := self._shift()):
            scale = self.input_scale
            scale = scale.view(-1, *[1] * (x.ndim - 2)) if axis and not self.is_linear else scale
            x = x - scale * shift
        integers = _onnx("QuantizeLinear", [x, self.input_scale, self.zero_point], torch.uint8, x, axis)
        if not self.layer.unsigned:
            integers = _onnx("Clip", [integers, self.lowest, self.highest], torch.uint8, x)
        elif self._low_bits():
            integers = _onnx("BitwiseAnd", [integers, self.mask], torch.uint8, x)
        return _onnx("DequantizeLinear", [integers, self.input_scale, self.zero_point], x.dtype, x, axis)

    def _weight(self) -> Tensor:
        """(in, out) of a linear layer, else as torch has it."""
        if self.weight is not None:
            return self.weight.t() if self.is_linear else self.weight
        integers = getattr(self, f"codes{self.layer.weight_bits}")
        axis = {"axis": 1 if self.is_linear else 0}
        return _onnx("DequantizeLinear", [integers, self.weight_scale], torch.float32, integers, axis)


def _onnx(
    name: str, inputs: list[Tensor], dtype: torch.dtype, like: Tensor, attributes: Any = None
) -> Tensor:
    return torch.onnx.ops.symbolic(
        name, inputs, attributes or {}, dtype=dtype, shape=like.shape, version=OPSET
    )


def quantized_layers(model: nn.Module) -> dict[str, Any]:
    """The `FakeQuantized` layers of `model`, by path; a shared one has several paths."""
    modules = model.named_modules(remove_duplicate=False)
    return {path: module for path, module in modules if isinstance(module, FakeQuantized)}


def put_integers(model: nn.Module) -> nn.Module:
    """Replace the quantized layers of `model`, which may be one itself; returns the model."""
    made: dict[int, IntegerLayer] = {}
    for path, layer in quantized_layers(model).items():
        stand_in = made.setdefault(id(layer), IntegerLayer(layer))
        if not path:
            return stand_in
        owner, _, name = path.rpartition(".")
        setattr(model.get_submodule(owner), name, stand_in)
    return model
