"""The options of an algorithm as a dataclass, which a recipe's mapping is checked against."""

import dataclasses
import inspect
import types
import warnings
from typing import Any, Union, get_args, get_origin, get_type_hints

from composer.core import Algorithm

from cadenza.recipe.methods.values import check

FIXED = ("input_key", "target_key", "batch")  # how Cadenza's batches are laid out


def options_of(name: str, cls: type[Algorithm]) -> Any:
    """A dataclass with the options of `cls`: `cls` itself if it's one, else made from its constructor.

    Making an instance builds the algorithm once, so that a value that it refuses is a `ValueError`.
    """
    if dataclasses.is_dataclass(cls):
        return cls
    hints = get_type_hints(cls.__init__)
    fields: list[Any] = []
    for key, parameter in inspect.signature(cls.__init__).parameters.items():
        if key not in ("self", *FIXED):
            fields.append((key, _plain(hints[key]), _default(parameter.default)))

    def __post_init__(self: Any) -> None:
        options = vars(self)
        check(name, options)
        try:
            with warnings.catch_warnings(action="ignore"):  # it warns again when it is built to be used
                cls(**options)
        except Exception as error:
            raise ValueError(f"algorithms.{name}: {' '.join(str(error).split())}") from error

    return dataclasses.make_dataclass(cls.__name__, fields, namespace={"__post_init__": __post_init__})


def _default(value: Any) -> Any:
    return dataclasses.field() if value is inspect.Parameter.empty else dataclasses.field(default=value)


def _plain(hint: Any) -> Any:
    """`hint` without classes that YAML can't spell, such as Composer's Time."""
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    plain = [each for each in get_args(hint) if each in (int, float, str, bool, type(None))]
    return Union[tuple(plain)]  # noqa: UP007 - of a tuple
