"""Which layers only ever get inputs that are not negative, found by tracing the model with torch.fx.

1. `_without_weights` copies the model to the meta device, so that tracing leaves the model itself alone.
2. `_Tracer` records the calls of modules and functions as a graph. A module that can't be traced becomes one
   node; its children are then traced by themselves, with unknown inputs.
3. `_is_nonnegative` decides for each node, from its function and its inputs, whether its output can be
   negative. A tensor that is changed in place later counts as unknown.
4. A layer is in the result if its input is not negative in each of its calls.

The obvious way, as in AQT, is a list of layers by name. Tracing serves any model, but it may miss a layer,
which is then quantized with a sign and loses one bit of range.
"""

import copy
import inspect
import operator
import warnings
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from cadenza.surgery.retype import stock_class

Node = fx.Node

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

IN_PLACE = {operator.iadd, operator.isub, operator.imul, operator.itruediv}


def nonnegative_inputs(model: nn.Module) -> set[str]:
    """The paths of the modules in `model` that never get a negative input."""
    calls: dict[str, list[bool]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path, nonnegative in _traced(_without_weights(model), ""):
            calls.setdefault(path, []).append(nonnegative)
    return {path for path, nonnegative in calls.items() if all(nonnegative)}


def _without_weights(model: nn.Module) -> nn.Module:
    """A copy of `model` on the meta device, without hooks: a traced forward may store what it gets."""
    memo: Any = {id(p): nn.Parameter(p.detach().to("meta"), False) for p in model.parameters()}
    memo |= {id(b): b.detach().to("meta") for b in model.buffers()}
    copied = copy.deepcopy(model, memo)
    for module in copied.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return copied


class _Root(nn.Module):
    """A module that calls `inner` with its required arguments only."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        parameters = inspect.signature(inner.forward).parameters.values()
        self.count = sum(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)

    def forward(self, x: Any) -> Any:
        return self.inner(*[x] * max(self.count, 1))


class _Proxy(fx.Proxy):
    """A proxy that records `x += y` as an in-place addition; torch.fx records `x = x + y`."""


def _recorded(function: Any) -> Any:
    return lambda x, y: x.tracer.create_proxy("call_function", function, (x, y), {})


for _function in IN_PLACE:
    setattr(_Proxy, f"__{_function.__name__}__", _recorded(_function))


class _Tracer(fx.Tracer):
    """A tracer that records a module as one node if its forward raises; `failed` lists their paths."""

    def __init__(self) -> None:
        super().__init__()
        self.failed: list[str] = []

    def proxy(self, node: Node) -> fx.Proxy:
        return _Proxy(node, self)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        path = self.path_of_module(m)
        if not self.is_leaf_module(m, path):
            try:
                return forward(*args, **kwargs)
            except Exception:  # a forward may raise anything if it gets a proxy
                self.failed.append(path)
        return self.create_proxy("call_module", path, args, kwargs)


def _traced(module: nn.Module, prefix: str) -> Iterator[tuple[str, bool]]:
    """The calls of submodules in `module`: path, and whether the first argument is never negative."""
    if not any(module.children()):
        return
    tracer, root = _Tracer(), _Root(module)
    graph = tracer.trace(root)
    modules: dict[str, nn.Module] = dict(root.named_modules())
    known: dict[Node, bool] = {}
    for node in graph.nodes:
        known[node] = _is_nonnegative(node, modules, known)
        if node.op == "call_module":
            called = _joined(prefix, str(node.target))
            argument: Any = node.args[0] if node.args else None
            yield called, known.get(argument, False) and not _is_written(argument)
    for path in dict.fromkeys(tracer.failed):
        for name, child in modules[path].named_children():
            yield from _traced(child, _joined(prefix, f"{path}.{name}"))


def _joined(prefix: str, target: str) -> str:
    """The path in the model of what `_Root` calls `target`; `prefix` is the path of its `inner`."""
    return ".".join(part for part in (prefix, *target.split(".")[1:]) if part)


def _is_nonnegative(node: Node, modules: dict[str, nn.Module], known: dict[Node, bool]) -> bool:
    """Whether the output of `node` is not negative, before any later change in place."""
    function: Any = node.target
    if node.op == "call_module":
        function = stock_class(modules[function])
    elif node.op not in ("call_function", "call_method"):
        return False
    if function in ALWAYS:
        return True
    inputs = [known[each] and not _is_written(each, but_by=node) for each in node.all_input_nodes]
    numbers = [each for each in (*node.args, *node.kwargs.values()) if isinstance(each, int | float)]
    arithmetic = function in ARITHMETIC and not any(number < 0 for number in numbers)
    return (function in PRESERVING or arithmetic) and bool(inputs) and all(inputs)


def _is_written(node: Node, but_by: Node | None = None) -> bool:
    """Whether a node other than `but_by` changes the tensor of `node` in place."""
    return any(_writes(user, node) for user in node.users if user is not but_by)


def _writes(user: Node, node: Node) -> bool:
    """Whether `user` changes the tensor of `node` in place, so that it may become negative."""
    if user.op == "call_function":
        return user.target in IN_PLACE and user.args[0] is node
    return user.op == "call_method" and str(user.target).endswith("_") and user.target not in ALWAYS
