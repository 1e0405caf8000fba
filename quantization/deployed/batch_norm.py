"""Batch norm behind a convolution of codes, folded into scales and bias: codes only change signs.

Training rounds the weight as it is, and batch norm follows in floating point. So with
factor = gamma / sqrt(variance + eps), channel by channel:

    scale' = scale * |factor|,  codes' = codes * sign(factor),  bias' = (bias - mean) * factor + beta

A factor of zero leaves codes of zero.
"""

from typing import Any

import numpy as np

from cadenza.quantization.deployed.graph import constant, new_constant, only_reader, produced_by, replace


def fold_batch_norms(graph: Any) -> int:
    """Fold each batch norm that alone reads a convolution with a constant weight; returns their number."""
    norms = [node for node in graph if node.op_type == "BatchNormalization"]
    return sum(_fold(graph, norm) for norm in norms)


def _fold(graph: Any, norm: Any) -> bool:
    convolution = produced_by(norm.inputs[0], "Conv")
    if convolution is None or only_reader(norm.inputs[0]) is not norm:
        return False
    statistics = [constant(value) for value in norm.inputs[1:5]]
    if any(numbers is None for numbers in statistics):
        return False
    gamma, beta, mean, variance = (numbers.astype(np.float64) for numbers in statistics)
    factor = gamma / np.sqrt(variance + norm.attributes["epsilon"].as_float())
    if not _scale_weight(graph, convolution, factor):
        return False
    bias = constant(convolution.inputs[2]) if len(convolution.inputs) > 2 else None
    add_bias(graph, convolution, (0.0 if bias is None else bias) * factor - mean * factor + beta, keep=False)
    replace(norm.outputs[0], convolution.outputs[0])
    return True


def _scale_weight(graph: Any, convolution: Any, factor: np.ndarray) -> bool:
    weight = convolution.inputs[1]
    by_channel = factor.reshape(-1, *[1] * (weight.shape.rank() - 1))
    if (numbers := constant(weight)) is not None:
        folded = (numbers * by_channel).astype(np.float32)
        convolution.replace_input_with(1, new_constant(graph, f"{weight.name}_folded", folded))
        return True
    node = produced_by(weight, "DequantizeLinear")
    if node is None or only_reader(weight) is not convolution:
        return False
    codes, scale = (constant(value) for value in node.inputs[:2])
    signed = (codes * np.sign(by_channel)).astype(np.int8)
    node.replace_input_with(0, new_constant(graph, f"{node.inputs[0].name}_signed", signed))
    positive = np.where(factor == 0, scale, scale * np.abs(factor)).astype(np.float32)
    node.replace_input_with(1, new_constant(graph, f"{node.inputs[1].name}_folded", positive))
    return True


def add_bias(graph: Any, convolution: Any, amount: Any, keep: bool = True) -> None:
    """Add `amount`, one number or one a channel, to the bias of a convolution, or put it in its place."""
    channels = convolution.inputs[1].shape[0]
    old = constant(convolution.inputs[2]) if keep and len(convolution.inputs) > 2 else None
    numbers = np.zeros(channels) if old is None else old.astype(np.float64)
    bias = new_constant(graph, f"{convolution.outputs[0].name}_bias", (numbers + amount).astype(np.float32))
    convolution.resize_inputs(3)
    convolution.replace_input_with(2, bias)
