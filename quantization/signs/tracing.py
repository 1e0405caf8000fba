"""The calls of modules and functions in a model, as graphs of torch.fx.

1. `without_weights` copies the model to the meta device, so that tracing leaves the model itself alone.
2. `_Tracer` records calls as a graph. A module that can't be traced becomes one node; its children are then
   traced by themselves, with unknown inputs. So does a module with hooks, which may change what it gets.
"""

import copy
import inspect
import operator
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor, fx, nn

Node = fx.Node

IN_PLACE = {operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ifloordiv}
IN_PLACE |= {operator.imod, operator.ipow, operator.iand, operator.ior, operator.ixor}
HOOKS = ("_forward_hooks", "_forward_pre_hooks")


class Traced(NamedTuple):
    """A graph, the modules that its nodes call, by target, and layers that are called with unknown inputs."""

    graph: fx.Graph
    modules: dict[str, nn.Module]
    unknown: list[nn.Module]


def without_weights(model: nn.Module) -> nn.Module:
    """A copy of `model` on the meta device, with hooks that do nothing: a traced forward may store things."""
    memo: Any = {id(p): nn.Parameter(p.detach().to("meta"), False) for p in model.parameters()}
    for module in model.modules():
        tensors = [t for t in (*vars(module).values(), *module._buffers.values()) if isinstance(t, Tensor)]
        memo |= {id(t): t.detach().to("meta") for t in tensors if id(t) not in memo}
    hooks = [hooks for module in model.modules() for hooks in _hooks(module)]
    memo |= {id(each): type(each)(dict.fromkeys(each, _no_hook)) for each in hooks}
    return copy.deepcopy(model, memo)


def traced(module: nn.Module) -> Iterator[Traced]:
    """The graph of `module`, and those of the children of what can't be traced within it."""
    if not any(module.children()):
        return
    tracer, root = _Tracer(), _Root(module)
    graph, modules = tracer.trace(root), dict[str, nn.Module](root.named_modules())
    failed = [modules[path] for path in dict.fromkeys(tracer.failed)]
    children = [child for each in failed for child in each.children()]
    yield Traced(graph, modules, [child for child in children if not any(child.children())])
    for child in children:
        yield from traced(child)


def is_changed(module: nn.Module) -> bool:
    """Whether hooks, or a forward of the object itself, may change what the class of `module` computes."""
    return "forward" in vars(module) or any(_hooks(module))


def _hooks(module: nn.Module) -> list[Any]:
    return [hooks for name in HOOKS if (hooks := getattr(module, name))]


def _no_hook(*args: Any) -> None:
    """Stands for a hook."""


class _Root(nn.Module):
    """A module that calls `inner` with its required arguments only."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        parameters = inspect.signature(inner.forward).parameters.values()
        self.count = sum(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)

    def forward(self, x: Any) -> Any:
        return self.inner(*[x] * max(self.count, 1))


def _recorded(function: Any) -> Any:
    return lambda x, y: x.tracer.create_proxy("call_function", function, (x, y), {})


class _InPlace:
    """Records `x += y` as an in-place addition, where torch.fx has `x = x + y`; refuses `x.data = y`."""

    def __getattr__(self, name: str) -> Any:
        return _Attribute(self, name)  # pyright: ignore[reportArgumentType, reportCallIssue]

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in ("tracer", "node", "root", "attr", "_node"):
            raise TypeError(f"a graph can't set {name} of a tensor")
        super().__setattr__(name, value)


for _function in IN_PLACE:
    setattr(_InPlace, f"__{_function.__name__.rstrip('_')}__", _recorded(_function))


class _Proxy(_InPlace, fx.Proxy):
    """The value of a node."""


class _Attribute(_InPlace, fx.proxy.Attribute):
    """An attribute of the value of a node."""


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
                if not is_changed(m) or path == "inner":
                    return forward(*args, **kwargs)
            except Exception:  # a forward may raise anything if it gets a proxy
                pass
            self.failed.append(path)
        return self.create_proxy("call_module", path, args, kwargs)
