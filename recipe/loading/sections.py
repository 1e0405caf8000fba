"""Sections: each mapping becomes its dataclass, whose fields say which keys and values fit."""

import dataclasses
import types
from typing import Any, Union, get_args, get_origin, get_type_hints

from cadenza.options import Times, declared, problem, shown
from cadenza.recipe.errors import RecipeError, nearest
from cadenza.recipe.loading.sources import Sources, sets, source


def section(cls: Any, values: Any, path: str, sources: Sources) -> Any:
    """An instance of the dataclass `cls` from `values`, the mapping at `path`.

    Raises:
        RecipeError: what is wrong, with the source that set it last.
    """
    if not isinstance(values, dict):
        raise RecipeError(f"{source(path, sources)}: {path} must be a mapping, not {shown(values)}")
    hints, known = get_type_hints(cls), {field.name: field for field in dataclasses.fields(cls)}
    given = {}
    for key, value in values.items():
        where = f"{path}.{key}" if path else str(key)
        if key not in known:
            hint = nearest(str(key), known)
            raise RecipeError(f"{source(where, sources)}: unknown key {where}; {hint}")
        given[key] = _value(known[key], hints[key], value, where, sources)
    for key in _required(cls):
        if key not in given:
            where, right = f"{path}.{key}".lstrip("."), type_names(hints[key])
            raise RecipeError(f"{source(path, sources)}: {where} is missing; it must be {right}")
    try:
        return cls(**given)
    except ValueError as error:
        raise RecipeError(f"{source(key_of(error, path, sources), sources)}: {error}") from error


def _required(cls: Any) -> list[str]:
    """The fields without a default."""
    found = (f for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING)
    return [field.name for field in found]


def key_of(error: ValueError, path: str, sources: Sources) -> str:
    """The key that the message of `error` begins with; `path` if no source sets that key."""
    key = str(error).partition(" ")[0]
    return key if any(sets(config, key) for _, config in sources) else path


def _value(field: dataclasses.Field, hint: Any, value: Any, where: str, sources: Sources) -> Any:
    if dataclasses.is_dataclass(hint):
        return section(hint, {} if value is None else value, where, sources)
    if hint is dict and value is None:
        return {}
    option = declared(field)
    if not (_fits(value, hint) or (isinstance(option.valid, Times) and _fits(value, float))):
        right = type_names(hint)
        found = f"{where} is {shown(value)} ({type(value).__name__}); it must be {right}"
        raise RecipeError(f"{source(where, sources)}: {found}")
    if found := problem(where, value, option):
        raise RecipeError(f"{source(where, sources)}: {found}")
    return float(value) if hint is float else value


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if get_origin(hint) is list:
        return isinstance(value, list) and all(_fits(item, get_args(hint)[0]) for item in value)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def type_names(hint: Any) -> str:
    """A type in words."""
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(type_names(option) for option in get_args(hint))
    if get_origin(hint) is list:
        return f"a list of {type_names(get_args(hint)[0])}"
    names = {int: "an integer", float: "a number", str: "text", bool: "true or false", dict: "a mapping"}
    return names.get(hint, "null")
