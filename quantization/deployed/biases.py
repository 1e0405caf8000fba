"""Biases of convolutions of codes, as integers whose scale is that of the products.

The scale is the input's times the weight's, channel by channel, as integer kernels need it: a bias moves by
half a unit of the sum of products at the most. ONNX Runtime would do the same with a bias in floating point,
also where it doesn't fit into 32 bits. Here such a bias is added afterwards.
"""

from typing import Any

import numpy as np
import onnx_ir as ir

from cadenza.quantization.deployed.graph import constant, new_constant, produced_by, readers

LARGEST = 2**31 - 1


def quantize_biases(graph: Any) -> None:
    """Store biases of convolutions of codes as INT32, or add them afterwards if they don't fit."""
    for node in [node for node in graph if node.op_type == "Conv" and len(node.inputs) > 2]:
        scale, bias = _scale(node), constant(node.inputs[2])
        if scale is not None and bias is not None:
            _quantize(graph, node, scale, bias.astype(np.float64))


def _scale(convolution: Any) -> Any:
    """(out,): the scale of products, if the input has one scale and the weight one for each channel."""
    dequantized = [produced_by(value, "DequantizeLinear") for value in convolution.inputs[:2]]
    if None in dequantized:
        return None
    of_input, of_weight = (constant(node.inputs[1]) for node in dequantized)
    return of_input * of_weight if of_input.ndim == 0 else None


def _quantize(graph: Any, convolution: Any, scale: np.ndarray, bias: np.ndarray) -> None:
    name = convolution.inputs[2].name
    integers = np.round(bias / scale.astype(np.float64))
    if np.abs(integers).max() > LARGEST:
        return _add_afterwards(graph, convolution, bias)
    inputs = [
        new_constant(graph, f"{name}_int32", integers.astype(np.int32)),
        new_constant(graph, f"{name}_scale", scale.astype(np.float32)),
    ]
    dequantize = ir.node("DequantizeLinear", inputs, {"axis": 0})
    dequantize.outputs[0].shape, dequantize.outputs[0].dtype = ir.Shape(bias.shape), ir.DataType.FLOAT
    graph.insert_before(convolution, dequantize)
    convolution.replace_input_with(2, dequantize.outputs[0])


def _add_afterwards(graph: Any, convolution: Any, bias: np.ndarray) -> None:
    output = convolution.outputs[0]
    spatial = [1] * (convolution.inputs[1].shape.rank() - 2)
    numbers = bias.astype(np.float32).reshape(-1, *spatial)
    later = [(node, i) for node in readers(output) for i, x in enumerate(node.inputs) if x is output]
    add = ir.node("Add", [output, new_constant(graph, f"{output.name}_bias", numbers)])
    add.outputs[0].shape, add.outputs[0].dtype = output.shape, output.dtype
    graph.insert_after(convolution, add)
    convolution.resize_inputs(2)
    for node, index in later:
        node.replace_input_with(index, add.outputs[0])
    if output.is_graph_output():
        name, output.name = output.name, f"{output.name}_product"
        graph.outputs[list(graph.outputs).index(output)] = add.outputs[0]
        add.outputs[0].name = name
