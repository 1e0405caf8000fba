"""Weights of fewer than 8 bits: INT4 where they fit, and multiplied up to 8 bits when a file is loaded.

A kernel of 8 bits takes the codes as they are. But it adds a bias in units of the input's scale times the
weight's. In 4 bits these are so coarse that one code in a hundred of the next layer would be another. So the
codes are multiplied by 2^(8 - bits), and their scale is divided by it, which rounds nothing. A runtime does
so once. The file holds the codes of training.
"""

import re
from typing import Any

import numpy as np
import onnx_ir as ir

from cadenza.quantization.deployed.graph import constant, new_constant

CODES = re.compile(r"\bcodes([2-7])(_signed)?\b")
PACKED_BITS = 4


def widen_codes(graph: Any) -> None:
    """Widen all codes of fewer than 8 bits of `graph`."""
    for node in [node for node in graph if node.op_type == "DequantizeLinear"]:
        if found := CODES.search(node.inputs[0].name or ""):
            _widen(graph, node, int(found[1]))


def _widen(graph: Any, node: Any, bits: int) -> None:
    codes, scale, factor = node.inputs[0], node.inputs[1], 2 ** (8 - bits)
    stored = codes
    if bits <= PACKED_BITS:
        packed = constant(codes).astype(ir.DataType.INT4.numpy())
        stored = new_constant(graph, f"{codes.name}_int4", packed)
    times = new_constant(graph, "factor", np.array(factor, np.int32))
    whole = ir.node("Cast", [stored], {"to": ir.DataType.INT32})
    product = ir.node("Mul", [whole.outputs[0], times])
    wide = ir.node("Cast", [product.outputs[0]], {"to": ir.DataType.INT8})
    for step, kind in ((whole, "INT32"), (product, "INT32"), (wide, "INT8")):
        step.outputs[0].shape, step.outputs[0].dtype = codes.shape, ir.DataType[kind]
    graph.insert_before(node, [whole, product, wide])
    node.replace_input_with(0, wide.outputs[0])
    fine = constant(scale) / np.float32(factor)
    node.replace_input_with(1, new_constant(graph, f"{scale.name}_fine", fine))
