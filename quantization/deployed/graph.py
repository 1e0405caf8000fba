"""Words for graphs of onnx_ir: the constant of a value, its only reader, a new constant, a replaced node."""

from typing import Any

import numpy as np
import onnx_ir as ir


def constant(value: Any) -> Any:
    """The numbers of an initializer; None of what is computed, and of a missing input."""
    return None if value is None or value.const_value is None else value.const_value.numpy()


def produced_by(value: Any, *kinds: str) -> Any:
    """The node that computes `value` if its operation is one of `kinds`, else None."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type in kinds else None


def readers(value: Any) -> list[Any]:
    """The nodes that read `value`, each once."""
    return list(dict.fromkeys(node for node, _ in value.uses()))


def only_reader(value: Any) -> Any:
    """The one node that reads `value`; None if there are more or it is an output of the graph."""
    found = readers(value)
    return found[0] if len(found) == 1 and not value.is_graph_output() else None


def new_constant(graph: Any, name: str, numbers: np.ndarray) -> Any:
    """An initializer of `graph`, under a name that is still free."""
    while name in graph.initializers:
        name += "_"
    tensor = ir.tensor(numbers, name=name)
    value = ir.Value(name=name, const_value=tensor)
    value.shape, value.dtype = ir.Shape(numbers.shape), tensor.dtype
    graph.register_initializer(value)
    return value


def replace(old: Any, new: Any) -> None:
    """Let all readers of the value `old` read `new`; the node of `old` is removed."""
    node = old.producer()
    if old.is_graph_output():
        new.name = old.name
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    node.graph.remove(node, safe=True)
