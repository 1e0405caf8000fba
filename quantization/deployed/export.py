"""`export_onnx`: a network that was trained with quantization, as an ONNX file of its integers.

1. A copy of the network gets `IntegerLayer`s in place of its quantized layers, and torch traces it.
   QuantizeLinear and DequantizeLinear stand around each product, batch and length are dynamic, and equal
   quantizers of one value become one.
2. Batch norms are folded into scales and biases, and half scales into biases, which become INT32.
3. Weights of 4 bits or fewer become INT4; a runtime makes INT8 of them when it loads the file.
4. ONNX Runtime computes the example and a smaller batch, and its outputs are compared with the network's.
5. The file is put in its place.

The obvious way is to let a tool quantize the float graph again. Its rounding, zero points and folded weights
would be others than those which training saw.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from cadenza.probes.untouched import untouched
from cadenza.quantization.deployed.calls import mapped, named_inputs, named_outputs
from cadenza.quantization.deployed.integer_layer import OPSET, quantized_layers
from cadenza.quantization.deployed.refusals import require_exportable
from cadenza.quantization.training.calibration import run_on
from cadenza.surgery.errors import SurgeryError

SUMS = ("float", "int8")


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file.
        opset: the version of ONNX's operations in it.
        quantized: the number of layers with codes.
        products: how many products with weights ONNX Runtime computes by which operation, on this machine.
        integer_products: the number of those that multiply integers.
        difference: the largest difference of outputs from the network's, relative to the largest output.
        notes: what makes the file slower than it could be.
    """

    path: Path
    opset: int
    quantized: int
    products: dict[str, int]
    integer_products: int
    difference: float
    notes: tuple[str, ...]

    def __str__(self) -> str:
        layers = f"{self.quantized} quantized layers, opset {self.opset}"
        products = f"{self.integer_products} of {sum(self.products.values())} products run in integers"
        difference = f"outputs differ by {self.difference:.2g} of the largest"
        return "\n".join([f"{self.path}: {layers}; {products}; {difference}", *self.notes])


def export_onnx(
    model: nn.Module, path: str | Path, example: Any, tolerance: float = 0.02, sums: str = "float"
) -> Exported:
    """Write `model`, after `quantization_aware_training` or `quantize_after_training`, as an ONNX file.

    Args:
        model: a network in float32 with quantized layers, whose calibration has ended. It stays unchanged.
        path: the file, which is overwritten.
        example: what the network is called with: a tensor, a tuple of tensors, or a mapping of names to
            tensors, each (batch, ...). Their first dimension is dynamic. So is the second one of integers,
            such as token ids (batch, length), and the sides of images (batch, channels, height, width),
            unless the network needs fixed ones.
        tolerance: the largest difference from the network's outputs, relative to the largest output. Where a
            number lies at the border of two codes, the last bit of a sum decides. So outputs differ by what
            some codes make.
        sums: `float`: residual sums as in training, for which ONNX Runtime computes convolutions in front of
            them in floating point. `int8`: convolutions there are rounded to 8 bits, by the range that
            `example` gives, and run in integers. Outputs differ by more, so set `tolerance` and compare
            accuracies.

    Raises:
        SurgeryError: the model can't be exported, or ONNX Runtime's outputs differ. No file is written then.
    """
    path = Path(path)
    if sums not in SUMS:
        raise SurgeryError(f"export_onnx: sums is {sums!r}; it must be {' or '.join(SUMS)}")
    require_exportable(model, path)
    from cadenza.quantization.deployed import runtime

    with TemporaryDirectory(dir=path.parent) as folder:
        draft = Path(folder) / path.name
        difference = _drafted(model, draft, example, sums)
        if not difference <= tolerance:
            raise SurgeryError(
                f"export_onnx: outputs of ONNX Runtime differ by {difference:.2g} of the largest one, and "
                f"tolerance is {tolerance}; {path} isn't written. A larger tolerance writes it; compare "
                "accuracies then"
            )
        products = dict(runtime.products(draft))
        os.replace(draft, path)
    integer = sum(count for kind, count in products.items() if kind in runtime.INTEGER)
    layers = list({id(layer): layer for layer in quantized_layers(model).values()}.values())
    return Exported(path, OPSET, len(layers), products, integer, difference, tuple(_notes(layers)))


def _drafted(model: nn.Module, draft: Path, example: Any, sums: str) -> float:
    """Write the file to `draft`; returns how far outputs are off, on the example and a smaller one."""
    import onnx_ir as ir

    from cadenza.quantization.deployed import runtime, tracing
    from cadenza.quantization.deployed.sums import round_sums

    examples = example, _smaller(example)
    expected = [_outputs(model, inputs) for inputs in examples]
    graph = tracing.traced(model, example, expected[0])
    if sums == "int8":
        round_sums(graph.graph, _ranges(graph, draft, example))
    ir.save(graph, draft)
    found = [runtime.outputs(draft, _arrays(inputs)) for inputs in examples]
    return max(_difference(*pair) for pair in zip(expected, found, strict=True))


def _outputs(model: nn.Module, inputs: Any) -> dict[str, Tensor]:
    """What the network computes in eval mode, by name."""
    with untouched(model), torch.no_grad():
        return named_outputs(run_on(model.eval(), inputs))


def _ranges(model: Any, draft: Path, example: Any) -> dict[str, tuple[float, float]]:
    """The smallest and largest number, by name, of what `round_sums` rounds; `draft` is written over."""
    import onnx_ir as ir

    from cadenza.quantization.deployed import runtime, sums

    outputs, values = list(model.graph.outputs), sums.unrounded(model.graph)
    model.graph.outputs.extend(value for value in values if not value.is_graph_output())
    ir.save(model, draft)
    found = runtime.outputs(draft, _arrays(example))
    del model.graph.outputs[len(outputs) :]
    return {value.name: (float(found[value.name].min()), float(found[value.name].max())) for value in values}


def _smaller(example: Any) -> Any:
    """The last row of the example, of token ids without the last one: a shape that wasn't traced."""

    def cut(x: Tensor) -> Tensor:
        has_length = x.ndim > 1 and not x.is_floating_point() and x.shape[1] > 1
        return x[-1:, :-1] if has_length else x[-1:]

    return mapped(example, cut)


def _arrays(example: Any) -> dict[str, Any]:
    return {name: x.numpy() for name, x in named_inputs(example).items()}


def _difference(expected: dict[str, Tensor], found: dict[str, Any]) -> float:
    """The largest difference of an output, relative to the largest number in it."""
    differences = []
    for name, tensor in expected.items():
        error = (tensor - torch.from_numpy(found[name])).abs().max()
        differences.append(float(error / tensor.abs().max().clamp(min=torch.finfo(tensor.dtype).tiny)))
    return max(differences)


def _notes(layers: list[Any]) -> list[str]:
    notes = []
    by_channel = sum(x.activation_bits is not None and x.input_averages.shape[1] > 1 for x in layers)
    if by_channel:
        notes.append(
            f"{by_channel} layers have a bound for each input channel, so their products run in floating "
            "point; granularity=per_tensor runs in integers"
        )
    plain = sum(x.weight_bits is None or x.activation_bits is None for x in layers)
    if plain:
        notes.append(
            f"{plain} layers quantize only weights or inputs, so their products run in floating point"
        )
    return notes
