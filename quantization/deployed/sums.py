"""Residual sums in 8 bits, for speed: what training leaves in floating point, an integer kernel must round.

ONNX Runtime computes a convolution in integers only if its output is quantized again. So in `round_sums`

1. the output of each convolution of codes that isn't quantized gets a scale and a zero point, by the range
   of an example, and
2. a residual sum that reads a number x, of which the next convolution reads a code of 8 bits, reads the code.

Both move a number by half a scale of 8 bits at the most, unless it's out of range.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from cadenza.quantization.deployed.graph import constant, new_constant, produced_by, readers, replace

LEVELS = 255


def unrounded(graph: Any) -> list[Any]:
    """The outputs of convolutions of codes that some node reads in floating point."""
    convolutions = [
        node
        for node in graph
        if node.op_type == "Conv" and all(produced_by(x, "DequantizeLinear") for x in node.inputs[:2])
    ]
    values = [node.outputs[0] for node in convolutions]
    return [value for value in values if {node.op_type for node in readers(value)} != {"QuantizeLinear"}]


def round_sums(graph: Any, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Round what `unrounded` names; `ranges` has the smallest and the largest number of each, by name."""
    for value in unrounded(graph):
        _round(graph, value, *ranges[value.name])
    for clip in [node for node in graph if node.op_type == "Clip"]:
        _read_code(clip)


def _round(graph: Any, value: Any, lowest: float, highest: float) -> None:
    lowest, highest = min(lowest, 0.0), max(highest, 0.0)
    scale = np.float32((highest - lowest) / LEVELS or 1.0)
    zero = np.uint8(np.clip(round(-lowest / scale), 0, LEVELS))
    constants = [
        new_constant(graph, f"{value.name}_scale", np.array(scale)),
        new_constant(graph, f"{value.name}_zero_point", np.array(zero)),
    ]
    uses = list(value.uses())
    quantize = ir.node("QuantizeLinear", [value, *constants])
    dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], *constants])
    for node, kind in ((quantize, ir.DataType.UINT8), (dequantize, ir.DataType.FLOAT)):
        node.outputs[0].shape, node.outputs[0].dtype = value.shape, kind
    graph.insert_after(value.producer(), [quantize, dequantize])
    for node, index in uses:
        node.replace_input_with(index, dequantize.outputs[0])


def _read_code(clip: Any) -> None:
    """Let the readers of max(x, -half a scale) read the code of x, if a convolution reads it in 8 bits."""
    value, bound = clip.inputs[0], constant(clip.inputs[1])
    codes = [node for node in readers(value) if node.op_type == "QuantizeLinear"]
    if len(codes) != 1 or bound is None or len(clip.inputs) > 2:
        return
    scale, (reader, *others) = constant(codes[0].inputs[1]), readers(codes[0].outputs[0])
    if others or reader.op_type != "DequantizeLinear" or not np.isclose(bound, -scale / 2, rtol=1e-6):
        return  # fewer than 8 bits: low ones are cut before the scale
    later = clip.outputs[0]
    replace(later, reader.outputs[0])
