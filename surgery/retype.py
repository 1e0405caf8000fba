"""In-place retyping: `mix` puts a mixin in front of a module's class, `unmix` removes it.

1. `module.__class__` becomes a new class, made of the mixins and the stock class, under the stock name.
2. Its `forward` has the stock signature, plus keyword-only parameters of the mixins.
3. The module object stays, with its parameters, state-dict keys, hooks, dtype, train flag and tied weights.

The obvious way, a new module in place of the old one, loses what 3. keeps. The cost: a class that is made at
run time has no importable name, so it brings its own `__reduce_ex__`. `torch.nn.utils.parametrize` assigns
`__class__` in the same way.
"""

import inspect
from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import cache, wraps
from itertools import pairwise
from typing import Any, ClassVar

from torch import nn

from cadenza.surgery.errors import Conflict, SurgeryError

Undo = Callable[[], None]
"""Reverts one change."""


class Stage(IntEnum):
    """The canonical order of surgeries; within a stage they commute."""

    STRUCTURE = 1  # adds, removes or reshapes parameters
    ATTENTION = 2  # claims a field of an attention plan
    PRECISION = 3  # computes with the same weights in another dtype
    QUANTIZE = 4  # computes with quantized weights


class Mixin:
    """A class to put in front of a module's class; its `forward` may call `super().forward`.

    Define a mixin at the top level of a Python module, so that the retyped model can be pickled:
    `class Louder(Mixin, of="my_technique", stage=Stage.PRECISION)`. Say `replaces=True` if its `forward` has
    a case without `super().forward`: then no other mixin's `forward` may stand behind it, but for those of
    the techniques that it `knows`, whose result it computes itself.
    """

    technique: ClassVar[str]
    mixin_stage: ClassVar[Stage]
    replaces: ClassVar[bool] = False
    knows: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(
        cls, of: str | None = None, stage: Stage | None = None, replaces: bool | None = None, **others: Any
    ) -> None:
        super().__init_subclass__(**others)
        if replaces is not None:
            cls.replaces = replaces
        if of is not None and stage is not None:
            cls.technique, cls.mixin_stage = of, stage


def mix(module: nn.Module, mixin: type[Mixin]) -> Undo:
    """Put `mixin` in front of the class of `module`.

    Mixins of a later stage come first; within a stage the order is by name. So the class doesn't depend on
    the order in which techniques are applied.

    Raises:
        Conflict: the mixin is there already, or the `forward` of one mixin would hide that of another.
    """
    _refuse_derived(module)
    stock, mixins = _parts(module)
    if mixin in mixins:
        raise Conflict(f"{stock.__name__}: {mixin.technique} is in place already; undo it first")
    mixins = tuple(sorted((mixin, *mixins), key=lambda m: (-m.mixin_stage, m.__name__)))
    _refuse_hidden(stock, _forwards(mixins))
    module.__class__ = _mixed(stock, mixins)
    return lambda: unmix(module, mixin)


def unmix(module: nn.Module, mixin: type[Mixin]) -> None:
    """Remove `mixin` from the class of `module`, if it's there."""
    _refuse_derived(module)
    stock, mixins = _parts(module)
    module.__class__ = _mixed(stock, tuple(m for m in mixins if m is not mixin))


def retype(module: nn.Module, stock: type) -> None:
    """Put the mixins of `module` in front of another stock class, of the same layout."""
    module.__class__ = _mixed(stock, _parts(module)[1])


def bound(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of a call of the stock `forward` by name: its own, and those for its `**kwargs`."""
    signature = inspect.signature(stock_class(module).forward)
    named = dict(signature.bind(module, *args, **kwargs).arguments)
    named.pop("self")
    return named, named.pop("kwargs", {})


def stock_class(module: nn.Module) -> type:
    """The class of `module` before any surgery."""
    return _parts(module)[0]


def is_stock(module: nn.Module, *names: str) -> bool:
    """Whether the stock class of `module` is a transformers class with one of these names.

    Not `isinstance`: a user's subclass may have its own `forward`, which a mixin would bypass. And names need
    no import of modeling files.
    """
    stock = stock_class(module)
    return stock.__name__ in names and is_of_transformers(stock)


def is_of_transformers(cls: type) -> bool:
    """Whether `cls` is a model or a layer that transformers defines."""
    return cls.__module__.startswith("transformers.models.")


def is_derived(module: nn.Module) -> bool:
    """Whether the class of `module` was made of a retyped one, as FSDP and parametrizations make classes."""
    return hasattr(type(module), "_retyped_from") and "_retyped_from" not in vars(type(module))


def _refuse_derived(module: nn.Module) -> None:
    if is_derived(module):
        name = type(module).__name__
        raise SurgeryError(
            f"{name} was made of a class after surgery, by FSDP or a parametrization; remove that first"
        )


def _parts(module: nn.Module) -> tuple[type, tuple[type, ...]]:
    return getattr(type(module), "_retyped_from", (type(module), ()))


@cache
def _mixed(stock: type, mixins: tuple[type, ...]) -> type:
    if not mixins:
        return stock
    shown = "".join(m.__name__ for m in mixins) + stock.__name__
    # The stock name: FSDP's wrapping policies, transformers' tables and its saved configs look it up.
    body = {
        "__module__": stock.__module__,
        "__qualname__": stock.__qualname__,
        "__init__": _stock_init(stock),
        "__reduce_ex__": _reduce,
        "_get_name": lambda self: shown,  # what `print(model)` shows
        "_retyped_from": (stock, mixins),
    }
    if forwards := _forwards(mixins):
        body["forward"] = _signed(stock, forwards)
    return type(stock.__name__, (*mixins, stock), body)


def _stock_init(stock: Any) -> Callable:
    """Makes `type(module)(config)` a stock model: a new object has had no surgery."""

    @wraps(stock.__init__)
    def __init__(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        _refuse_derived(self)
        self.__class__ = stock
        self.__init__(*args, **kwargs)

    return __init__


def _forwards(mixins: Sequence[Any]) -> list[Any]:
    """The mixins that define `forward`, the outermost first."""
    return [mixin for mixin in mixins if "forward" in vars(mixin)]


def _refuse_hidden(stock: type, forwards: list[Any]) -> None:
    for outer, inner in pairwise(forwards):
        if inner.technique in outer.knows:
            continue
        if outer.replaces or "super" not in outer.forward.__code__.co_names:
            raise Conflict(
                f"{stock.__name__}: {outer.technique} and {inner.technique} both replace what it computes; "
                "undo one of them first"
            )


def _signed(stock: Any, mixins: list[Any]) -> Callable:
    """The first mixin's `forward`, with the stock signature plus the keyword-only parameters of the mixins.

    Trainers read the signature to choose the arguments that they pass.
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
    """Stock class, mixins and state: pickle and deepcopy can't import a class that is made at run time."""
    return _blank, _parts(module), module.__getstate__()


def _blank(stock: type, mixins: tuple[type, ...]) -> nn.Module:
    retyped: Any = _mixed(stock, mixins)
    return retyped.__new__(retyped)
