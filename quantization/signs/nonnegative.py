"""Which layers only ever get inputs that are not negative, proved on graphs of torch.fx.

1. `tracing` records the calls of modules and functions as graphs.
2. `_Signs` decides for each node, from its function and its inputs, whether its output can be negative. What
   isn't listed can be. So can a tensor that `writes` finds changed later.
3. A layer is in the result if its input is not negative in each of its calls, in train and in eval mode.

The obvious way, as in AQT, is a list of layers by name. Tracing serves any model, but it may miss a layer,
which is then quantized with a sign and loses one bit of range. A graph holds the calls for required arguments
alone; calibration therefore measures whether inputs are negative, too.
"""

import operator
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from cadenza.quantization.signs.tracing import Node, Traced, is_changed, traced, without_weights
from cadenza.quantization.signs.writes import Writes
from cadenza.surgery.retype import stock_class

# The output is never negative. Strings are methods.
ALWAYS = {nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Softmax, F.relu, F.relu_, F.relu6, torch.relu, torch.relu_}
ALWAYS |= {torch.sigmoid, torch.softmax, F.softmax, torch.square, torch.abs}
ALWAYS |= {"relu", "relu_", "sigmoid", "softmax", "square", "abs"}
# The output is not negative if no input is.
PRESERVING = {nn.Identity, nn.Flatten, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d}
POOLS = ("Max", "Avg", "AdaptiveMax", "AdaptiveAvg")
PRESERVING |= {getattr(nn, f"{kind}Pool{n}d") for kind in POOLS for n in (1, 2, 3)}
PRESERVING |= {F.dropout, F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d}
PRESERVING |= {torch.reshape, torch.mean, torch.sum, torch.transpose, torch.permute, torch.cat, torch.concat}
PRESERVING |= {"view", "reshape", "flatten", "permute", "transpose", "contiguous", "mean", "sum", "squeeze"}
PRESERVING |= {"unsqueeze", "to", "float", "clone", "expand", operator.getitem, torch.flatten}
# The output is not negative if no input is, numbers among the arguments included.
ARITHMETIC = {operator.add, operator.iadd, operator.mul, operator.imul, torch.add, torch.mul, "add", "mul"}


def nonnegative_inputs(model: nn.Module) -> set[str]:
    """The paths of the modules in `model` that never get a negative input."""
    calls: dict[nn.Module, list[bool]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        copied = _copy(model)
        for training in (True, False):
            for graph in traced(copied.train(training)):
                _judge(graph, calls)
    return {path for path, module in copied.named_modules() if module in calls and all(calls[module])}


def _copy(model: nn.Module) -> nn.Module:
    """A copy to trace; an empty module, of which nothing is known, if `model` can't be copied."""
    try:
        return without_weights(model)
    except Exception:  # of what a user's module holds: a lock, a file, a tensor with a gradient
        return nn.Module()


def _judge(graph: Traced, calls: dict[nn.Module, list[bool]]) -> None:
    """Add to `calls`, for each call of a module in `graph`, whether its input is never negative."""
    signs = _Signs(graph)
    for module in graph.unknown:
        calls.setdefault(module, []).append(False)
    for node in graph.graph.nodes:
        if node.op == "call_module":
            module = graph.modules[str(node.target)]
            is_known = bool(node.args) and not module._forward_pre_hooks and "forward" not in vars(module)
            calls.setdefault(module, []).append(is_known and signs.holds(node.args[0], node))


class _Signs:
    """Which nodes of a graph are never negative."""

    def __init__(self, graph: Traced) -> None:
        self.modules, self.writes = graph.modules, Writes(graph, ALWAYS | PRESERVING)
        self.known: dict[Any, bool] = {}
        for node in graph.graph.nodes:
            self.known[node] = self._is_nonnegative(node)

    def holds(self, node: Any, reader: Node) -> bool:
        """Whether `node` is never negative when `reader` gets it."""
        return self.known.get(node, False) and not self.writes.between(node, reader)

    def _is_nonnegative(self, node: Node) -> bool:
        """Whether the output of `node` is not negative, before any later change in place."""
        function: Any = node.target
        if node.op == "call_module":
            module = self.modules[function]
            function = stock_class(module)
            if is_changed(module) or not _keeps_signs(vars(module)):
                return False
        elif node.op not in ("call_function", "call_method"):
            return False
        if function in ALWAYS:
            return True
        inputs = node.all_input_nodes
        arithmetic = function in ARITHMETIC and all(number >= 0 for number in _numbers(node))
        preserving = function in PRESERVING and _keeps_dtype(node) and _keeps_signs(_options(node))
        return (arithmetic or preserving) and bool(inputs) and all(self.holds(n, node) for n in inputs)


def _numbers(node: Node) -> list[int | float]:
    return [each for each in (*node.args, *node.kwargs.values()) if isinstance(each, int | float)]


def _keeps_dtype(node: Node) -> bool:
    """Whether `node` doesn't cast to integers, which may overflow, nor read memory as another dtype."""
    dtypes = [each for each in (*node.args, *node.kwargs.values()) if isinstance(each, torch.dtype)]
    return not dtypes or (node.target != "view" and all(dtype.is_floating_point for dtype in dtypes))


def _options(node: Node) -> dict[str, Any]:
    """The options of pooling by name; those of other functions, which may be of any name, as they are."""
    names = {F.avg_pool2d: (6, "divisor_override"), F.max_pool2d: (4, "dilation")}
    place, name = names.get(node.target, (0, ""))  # pyright: ignore[reportArgumentType, reportCallIssue]
    positional = {name: node.args[place]} if name and len(node.args) > place else {}
    return {**node.kwargs, **positional}


def _keeps_signs(options: Any) -> bool:
    """Whether pooling keeps signs: no divisor of one's own, no dilated window, which may be padding alone."""
    return not options.get("divisor_override") and options.get("dilation", 1) == 1
