"""Which tensors of a graph of torch.fx are changed in place after they were computed, also through a view."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules import batchnorm, conv, pooling

from cadenza.quantization.signs.tracing import IN_PLACE, Node, Traced, is_changed
from cadenza.surgery.retype import stock_class

# These return new memory; all else may return a view of what it gets. Strings are methods.
NEW_MODULES = (conv._ConvNd, batchnorm._NormBase, nn.Linear, nn.LayerNorm, nn.GroupNorm, nn.Softmax, nn.GELU)
NEW_MODULES += (nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.SiLU, nn.Tanh, pooling._MaxPoolNd, pooling._AvgPoolNd)
NEW_MODULES += (pooling._AdaptiveAvgPoolNd, pooling._AdaptiveMaxPoolNd)
NEW = {F.relu, F.relu6, F.softmax, F.gelu, F.linear, F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d}
NEW |= {getattr(torch, name) for name in ("relu", "sigmoid", "softmax", "add", "sub", "mul", "matmul", "cat")}
NEW |= {"relu", "sigmoid", "softmax", "square", "abs", "add", "sub", "mul", "matmul", "mean", "sum", "clone"}
NEW |= {"size", "dim", "numel"}
OPERATORS = {"add", "sub", "mul", "truediv", "matmul", "neg"}
OF_TORCH = ("torch.", "_operator", "operator", "builtins", "math")


class Writes:
    """The writes of a graph: nodes that change tensors, so that these may become negative.

    Args:
        traced: the graph.
        harmless: functions, methods and module classes that keep tensors from becoming negative.
    """

    def __init__(self, traced: Traced, harmless: set[Any]) -> None:
        self.modules, self.harmless = traced.modules, harmless
        self.order = {node: number for number, node in enumerate(traced.graph.nodes)}
        self.families: dict[Node, set[Node]] = {}  # nodes that may share memory
        for node in self.order:
            self._join(node, self._shared(node))
        self.writes = [(node, target) for node in self.order for target in self._targets(node)]

    def between(self, node: Node, reader: Node) -> bool:
        """Whether the tensor of `node` may be written into before `reader` gets it."""
        family, since, until = self.families[node], self.order[node], self.order[reader]
        return any(since < self.order[w] < until and target in family for w, target in self.writes)

    def _join(self, node: Node, others: Iterable[Node]) -> None:
        self.families[node] = {node}
        for other in others:
            family = self.families[node] | self.families[other]
            self.families |= dict.fromkeys(family, family)

    def _shared(self, node: Node) -> list[Node]:
        """The nodes whose memory the result of `node` may share."""
        if _name(node).endswith("_") or node.target in IN_PLACE:
            return node.all_input_nodes[:1]
        return [] if self._is_new(node) else node.all_input_nodes

    def _is_new(self, node: Node) -> bool:
        if node.op == "call_module":
            module = self.modules[str(node.target)]
            is_new = stock_class(module).__module__.startswith("torch.nn.") and isinstance(
                module, NEW_MODULES
            )
            return is_new and not is_changed(module) and not getattr(module, "inplace", False)
        if _is_in_place(node) or "out" in node.kwargs:
            return False
        operators = getattr(node.target, "__module__", "") == "_operator" and _name(node) in OPERATORS
        return operators or node.target in NEW

    def _targets(self, node: Node) -> list[Node]:
        """The nodes whose tensors `node` changes in a way that isn't harmless."""
        function: Any = node.target
        if node.op == "call_module":
            module = self.modules[function]
            function = stock_class(module)
            if is_changed(module) or not function.__module__.startswith("torch.nn."):
                return node.all_input_nodes
            return node.all_input_nodes if module.__dict__.get("inplace") and self._harms(function) else []
        if node.op == "call_method":
            return node.all_input_nodes[:1] if function.endswith("_") and self._harms(function) else []
        return self._written_by_function(node) if node.op == "call_function" else []

    def _written_by_function(self, node: Node) -> list[Node]:
        module = getattr(node.target, "__module__", None) or ""
        is_ours = module.startswith(OF_TORCH) or module == "torch"
        if not is_ours or (module.startswith("torch._ops.") and "aten" not in module) or "out" in node.kwargs:
            return node.all_input_nodes
        if node.target in IN_PLACE:
            return node.all_input_nodes[:1]
        in_place = _is_in_place(node) or _name(node).split(".")[0].endswith("_")
        return node.all_input_nodes if in_place and self._harms(node.target) else []

    def _harms(self, function: Any) -> bool:
        return function not in self.harmless


def _name(node: Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


def _is_in_place(node: Node) -> bool:
    """Whether an argument may be `inplace=True`."""
    return node.op == "call_function" and (
        bool(node.kwargs.get("inplace")) or any(each is True for each in node.args)
    )
