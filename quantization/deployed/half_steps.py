"""The half scale that is subtracted before rounding, moved into the bias of an earlier convolution.

An unsigned input x is rounded down: its code is that of x - h, rounded to the nearest, with h half a scale.
As a node of its own that costs a pass over memory, and hides the convolution from its quantizer. So it moves:

1. x is Relu(y). As QuantizeLinear stops at zero, it may read y - h: a negative y has the code 0 either way.
2. y is a convolution, or a sum or maximum that a convolution feeds: -h goes into the bias of that one.
3. Another reader of x, such as a residual sum, gets max(y - h, -h) = x - h. Where it is a sum which a
   convolution feeds, that one's bias takes h back. If some reader is none, nothing is moved.
"""

from typing import Any

import numpy as np
import onnx_ir as ir

from cadenza.quantization.deployed.batch_norm import add_bias
from cadenza.quantization.deployed.graph import (
    constant,
    new_constant,
    only_reader,
    produced_by,
    readers,
    replace,
)


def move_half_steps(graph: Any) -> int:
    """Move what can be moved; returns the number of subtractions that are gone."""
    for relu in [node for node in graph if node.op_type == "Relu"]:
        _behind_pooling(graph, relu)
    return sum(_move(graph, relu) for relu in [node for node in graph if node.op_type == "Relu"])


def _behind_pooling(graph: Any, relu: Any) -> None:
    """Relu, then MaxPool: the same in the other order."""
    pool = only_reader(relu.outputs[0])
    if pool is None or pool.op_type != "MaxPool" or len(pool.outputs) > 1:
        return
    pool.replace_input_with(0, relu.inputs[0])
    behind = ir.node("Relu", [pool.outputs[0]])
    behind.outputs[0].shape, behind.outputs[0].dtype = pool.outputs[0].shape, pool.outputs[0].dtype
    ir.convenience.replace_all_uses_with(pool.outputs[0], behind.outputs[0], replace_graph_outputs=True)
    behind.replace_input_with(0, pool.outputs[0])
    graph.insert_after(pool, behind)
    graph.remove(relu, safe=True)


def _move(graph: Any, relu: Any) -> bool:
    rectified, before = relu.outputs[0], relu.inputs[0]
    shifts = [node for node in readers(rectified) if _half(node) is not None]
    source = _with_bias(before, relu)
    if len(shifts) != 1 or source is None or rectified.is_graph_output():
        return False
    half, others = _half(shifts[0]), [node for node in readers(rectified) if node is not shifts[0]]
    sums = [_partner(node, rectified) for node in others]
    if None in sums or len(set(sums)) != len(sums):
        return False
    add_bias(graph, source, -half)
    replace(shifts[0].outputs[0], before)
    for convolution in sums:
        add_bias(graph, convolution, half)
    if others:
        _at_least(graph, relu, -half)
    else:
        graph.remove(relu, safe=True)
    return True


def _half(node: Any) -> Any:
    """What `node` subtracts before a quantizer, if that is one number."""
    if node.op_type != "Sub" or (half := constant(node.inputs[1])) is None or half.size != 1:
        return None
    quantizers = readers(node.outputs[0])
    if node.outputs[0].is_graph_output() or [q.op_type for q in quantizers] != ["QuantizeLinear"]:
        return None
    scale = constant(quantizers[0].inputs[1])
    return float(half) if scale is not None and np.isclose(half, scale / 2, rtol=1e-6) else None


def _with_bias(value: Any, reader: Any) -> Any:
    """The convolution whose bias shifts `value` alone, which only `reader` reads."""
    if value is None or only_reader(value) is not reader:
        return None
    node = produced_by(value, "Conv", "MaxPool", "Add")
    if node is None or node.op_type == "Conv":
        return node
    found = (_with_bias(each, node) for each in node.inputs)
    return next((convolution for convolution in found if convolution is not None), None)


def _partner(node: Any, rectified: Any) -> Any:
    """The convolution whose bias takes back what is missing from `rectified` in the sum `node`."""
    if node.op_type != "Add":
        return None
    (other,) = [value for value in node.inputs if value is not rectified] or [None]
    return _with_bias(other, node)


def _at_least(graph: Any, relu: Any, lowest: float) -> None:
    bound = new_constant(graph, "lowest", np.array(lowest, np.float32))
    clip = ir.node("Clip", [relu.inputs[0], bound])
    clip.outputs[0].shape, clip.outputs[0].dtype = relu.outputs[0].shape, relu.outputs[0].dtype
    graph.insert_after(relu, clip)
    replace(relu.outputs[0], clip.outputs[0])
