"""Which layers only ever get inputs that aren't negative: found by tracing the model, not by names."""

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

# What gives no negative numbers.
FROM = {nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Softmax, F.relu, F.relu_, F.relu6, torch.relu, torch.relu_}
FROM |= {torch.sigmoid, torch.softmax, F.softmax, torch.square, torch.abs}
FROM |= {"relu", "relu_", "sigmoid", "softmax", "square", "abs"}
# What gives none if it gets none.
KEEPS = {nn.Identity, nn.Flatten, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d}
KEEPS |= {
    getattr(nn, f"{kind}Pool{n}d") for kind in ("Max", "Avg", "AdaptiveMax", "AdaptiveAvg") for n in (1, 2, 3)
}
KEEPS |= {F.dropout, F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d, torch.flatten}
KEEPS |= {torch.reshape, torch.mean, torch.sum, torch.transpose, torch.permute, torch.cat, torch.concat}
KEEPS |= {"view", "reshape", "flatten", "permute", "transpose", "contiguous", "mean", "sum", "squeeze"}
KEEPS |= {"unsqueeze", "to", "float", "clone", "expand", operator.getitem}
# What does if none of its numbers is negative either.
ADDS = {operator.add, operator.iadd, operator.mul, operator.imul, torch.add, torch.mul, "add", "mul"}

IN_PLACE = {operator.iadd, operator.isub, operator.imul, operator.itruediv}


def nonnegative_inputs(model: nn.Module) -> set[str]:
    """The paths of modules of `model` whose input is not negative wherever they are called.

    What torch.fx can't trace is taken for a black box, and its parts are traced on their own, their inputs
    unknown. A layer that is missing from the result loses the use of a bit, and nothing else.
    """
    calls: dict[str, list[bool]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path, verdict in _traced(_without_weights(model), ""):
            calls.setdefault(path, []).append(verdict)
    return {path for path, verdicts in calls.items() if all(verdicts)}


def _without_weights(model: nn.Module) -> nn.Module:
    """A copy on the meta device, since tracing runs code that may keep what it sees; without hooks."""
    memo: Any = {id(p): nn.Parameter(p.detach().to("meta"), False) for p in model.parameters()}
    memo |= {id(b): b.detach().to("meta") for b in model.buffers()}
    bare = copy.deepcopy(model, memo)
    for module in bare.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return bare


class _Called(nn.Module):
    """A root that calls `inner` with what it requires, and leaves the rest at its defaults."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        own = inspect.signature(inner.forward).parameters.values()
        self.count = sum(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in own)

    def forward(self, x: Any) -> Any:
        return self.inner(*[x] * max(self.count, 1))


class _Proxy(fx.Proxy):
    """One that records `x += y` as what it is; torch.fx takes it for `x = x + y`."""


def _recorded(function: Any) -> Any:
    return lambda x, y: x.tracer.create_proxy("call_function", function, (x, y), {})


for _function in IN_PLACE:
    setattr(_Proxy, f"__{_function.__name__}__", _recorded(_function))


class _Tracer(fx.Tracer):
    """One that takes a module for a black box where its forward raises; `failed` has their paths."""

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
            except Exception:  # whatever a forward raises that meets a proxy
                self.failed.append(path)
        return self.create_proxy("call_module", path, args, kwargs)


def _traced(module: nn.Module, prefix: str) -> Iterator[tuple[str, bool]]:
    """The calls in `module` of its submodules: path, and whether the input is never negative."""
    if not any(module.children()):
        return
    tracer, root = _Tracer(), _Called(module)
    graph = tracer.trace(root)
    modules: dict[str, nn.Module] = dict(root.named_modules())
    known: dict[Node, bool] = {}
    for node in graph.nodes:
        known[node] = _is_nonnegative(node, modules, known)
        if node.op == "call_module":
            inside = prefix + str(node.target).removeprefix("inner").removeprefix(".")
            entering: Any = node.args[0] if node.args else None
            yield inside, known.get(entering, False) and not _is_written(entering)
    for path in dict.fromkeys(tracer.failed):
        for name, child in modules[path].named_children():
            yield from _traced(
                child, f"{prefix}{path.removeprefix('inner').removeprefix('.')}.{name}.".lstrip(".")
            )


def _is_nonnegative(node: Node, modules: dict[str, nn.Module], known: dict[Node, bool]) -> bool:
    """Whether what `node` gives is not negative, whatever is done to it later."""
    does: Any = node.target
    if node.op == "call_module":
        does = stock_class(modules[does])
    elif node.op not in ("call_function", "call_method"):
        return False
    if does in FROM:
        return True
    inputs = [known[each] and not _is_written(each, but_by=node) for each in node.all_input_nodes]
    keeps = does in KEEPS or (does in ADDS and not _has_negative_number(node))
    return keeps and bool(inputs) and all(inputs)


def _has_negative_number(node: Node) -> bool:
    numbers = (*node.args, *node.kwargs.values())
    return any(isinstance(each, int | float) and each < 0 for each in numbers)


def _is_written(node: Node, but_by: Node | None = None) -> bool:
    """Whether the tensor of `node` is changed in place, by another than `but_by`."""
    return any(_writes(user, node) for user in node.users if user is not but_by)


def _writes(user: Node, node: Node) -> bool:
    """Whether `user` changes the tensor of `node` in place, other than to cut off what is negative."""
    name = user.target
    if user.op == "call_function":
        return name in IN_PLACE and user.args[0] is node
    return user.op == "call_method" and str(name).endswith("_") and name not in FROM
