"""In-place retyping: put a mixin in front of a module's class, and take it out again.

The module object stays, and with it its parameters, state-dict keys, hooks, dtype, train flag and
ties. Python allows this for any `nn.Module`; `torch.nn.utils.parametrize` rests on the same rule.
"""

import inspect
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

from torch import nn

from cadenza.surgery.errors import Conflict

Undo = Callable[[], None]
Edit = Callable[[], Undo]


def mix(module: nn.Module, mixin: type) -> Undo:
    """Put `mixin` in front of the class of `module`; the result takes it out again.

    The mixin's `forward` may call `super().forward`. It must live at the top level of a module, so
    that the retyped model can be pickled and deep-copied.
    """
    stock, mixins = _parts(module)
    if mixin in mixins:
        raise Conflict(f"{module._get_name()} has {mixin.__name__} already; undo that first")
    # Sorted, so that the order in which techniques come makes no other class.
    module.__class__ = _mixed(stock, tuple(sorted((mixin, *mixins), key=lambda m: m.__name__)))
    return lambda: unmix(module, mixin)


def unmix(module: nn.Module, mixin: type) -> None:
    """Take `mixin` out of the class of `module`, if it's there."""
    stock, mixins = _parts(module)
    module.__class__ = _mixed(stock, tuple(m for m in mixins if m is not mixin))


def retype(module: nn.Module, stock: type) -> None:
    """Put the mixins of `module` in front of another stock class, one of the same layout."""
    module.__class__ = _mixed(stock, _parts(module)[1])


def bound(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A call of the stock `forward` of `module` by name: its own arguments, and those it takes as `**`."""
    signature = inspect.signature(stock_class(module).forward)
    named = dict(signature.bind(module, *args, **kwargs).arguments)
    named.pop("self")
    return named, named.pop("kwargs", {})


def chain(*edits: Edit) -> Undo:
    """Do several edits, all or none: if one raises, those before it are undone. One way back for all."""
    undos: list[Undo] = []

    def undo() -> None:
        while undos:
            undos.pop()()

    try:
        undos.extend(edit() for edit in edits)
    except BaseException:
        undo()
        raise
    return undo


def stock_class(module: nn.Module) -> type:
    """The class that `module` had before any surgery."""
    return _parts(module)[0]


def is_stock(module: nn.Module, *names: str) -> bool:
    """Whether `module` is, surgeries aside, exactly a transformers class of one of these names.

    By name and not by `isinstance`: a user's subclass may have a `forward` of its own, which a mixin
    would bypass; and no modeling file of a family that isn't used gets imported.
    """
    stock = stock_class(module)
    return stock.__name__ in names and stock.__module__.startswith("transformers.models.")


def _parts(module: nn.Module) -> tuple[type, tuple[type, ...]]:
    return getattr(type(module), "_retyped_from", (type(module), ()))


@cache
def _mixed(stock: type, mixins: tuple[type, ...]) -> type:
    if not mixins:
        return stock
    shown = "".join(m.__name__ for m in mixins) + stock.__name__
    # Under the stock name: FSDP's wrapping policies, transformers' tables and its saved configs go by it.
    body = {
        "__module__": stock.__module__,
        "__qualname__": stock.__qualname__,
        "__reduce_ex__": _reduce,
        "_get_name": lambda self: shown,  # what `print(model)` shows
        "_retyped_from": (stock, mixins),
    }
    if forwards := [mixin for mixin in mixins if "forward" in vars(mixin)]:
        body["forward"] = _signed(stock, forwards)
    return type(stock.__name__, (*mixins, stock), body)


def _signed(stock: Any, mixins: list[Any]) -> Callable:
    """The first mixin's `forward` under the stock signature, by which trainers choose what they pass.

    Keyword-only parameters that mixins add stand in it, too.
    """

    @wraps(stock.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return mixins[0].forward(self, *args, **kwargs)

    signature = inspect.signature(stock.forward)
    parameters = dict(signature.parameters)
    for mixin in mixins:
        own = inspect.signature(mixin.forward).parameters.values()
        parameters |= {p.name: p for p in own if p.kind is p.KEYWORD_ONLY and p.name not in parameters}
    in_order = sorted(parameters.values(), key=lambda p: p.kind)
    forward.__signature__ = signature.replace(parameters=in_order)  # pyright: ignore[reportFunctionMemberAccess]
    return forward


def _reduce(module: nn.Module, protocol: Any) -> tuple:
    # A class made at run time has no importable name, so pickle and deepcopy get its parts.
    return _blank, _parts(module), module.__getstate__()


def _blank(stock: type, mixins: tuple[type, ...]) -> nn.Module:
    retyped: Any = _mixed(stock, mixins)
    return retyped.__new__(retyped)
