"""Load a recipe from files and `key=value` pairs.

1. `_merged`: the sources are merged from left to right; later ones override earlier ones.
2. `_built`: each mapping becomes its dataclass of `schema`; unknown keys and wrong types are errors.
3. `_algorithms`, `_check_time`: what the dataclasses can't check: options of techniques, and times.

An error names the source that set the wrong value last.
"""

import dataclasses
import keyword
import types
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from composer.core import Time
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cadenza.algorithms import REGISTRY
from cadenza.recipe.errors import RecipeError, nearest
from cadenza.recipe.schema import IMAGES, OBJECTIVES, ImageRecipe, Recipe, Run

Sources = list[tuple[str, Any]]  # (file name or "command line", its config)

TIMES = (
    "train.max_duration",
    "train.eval_interval",
    "train.save_interval",
    "scheduler.t_warmup",
    "scheduler.t_cooldown",
)


def load(files: list[str], overrides: list[str]) -> Recipe | ImageRecipe:
    """The recipe that `files` and `key=value` pairs give; its class depends on `model.objective`.

    Raises:
        RecipeError: a missing file, invalid YAML, an unknown key, a wrong type or value.
    """
    merged, sources = _merged(files, overrides)
    recipe = _built(_class_of(merged, sources), merged, sources)
    recipe.algorithms = _algorithms(recipe.algorithms, sources)
    for path in TIMES:
        _check_time(path, OmegaConf.select(merged, path), sources)
    return recipe


def _class_of(merged: Any, sources: Sources) -> type[Run]:
    key = "model.objective"
    try:
        objective = OmegaConf.select(merged, key)
    except OmegaConfBaseException:  # `_built` reports it with its file
        return Recipe
    if isinstance(objective, str) and objective not in OBJECTIVES:
        hint = nearest(objective, OBJECTIVES)
        raise RecipeError(f"{_source(key, sources)}: {key} is {objective!r}; {hint}")
    return ImageRecipe if objective == IMAGES else Recipe


def load_settings(cls: Any, files: list[str], overrides: list[str]) -> Any:
    """An instance of the dataclass `cls`, such as a study's settings; otherwise like `load`."""
    return _built(cls, *_merged(files, overrides))


def _merged(files: list[str], overrides: list[str]) -> tuple[Any, Sources]:
    sources = [(file, _read(file)) for file in files]
    sources += [("command line", _override(pair)) for pair in overrides]
    merged: Any = OmegaConf.create()
    for name, config in sources:
        try:
            merged = OmegaConf.merge(merged, config)
        except (OmegaConfBaseException, TypeError) as error:
            raise RecipeError(f"{name}: {_one_line(error)}") from error
    return merged, sources


def _built(cls: Any, merged: Any, sources: Sources) -> Any:
    try:
        values = OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        raise RecipeError(f"{sources[0][0]}: {_one_line(error)}") from error
    return _section(cls, values, "", sources)


def resolved(recipe: Run) -> str:
    """The recipe as YAML, with all defaults."""
    return OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(recipe)))


def _read(file: str) -> Any:
    path = Path(file)
    if not path.is_file():
        nearby = [str(p) for p in path.parent.glob("*.yaml")] or ["yamls/*.yaml"]
        raise RecipeError(f"{file}: there is no such file; {nearest(file, nearby)}")
    try:
        config = OmegaConf.load(path)
    except Exception as error:
        raise RecipeError(f"{file}: not valid YAML ({_one_line(error)})") from error
    if not OmegaConf.is_dict(config):
        raise RecipeError(f"{file}: a recipe is a mapping of keys to values")
    return config


def _override(pair: str) -> Any:
    key, equals, _ = pair.partition("=")
    if not equals or not key:
        raise RecipeError(f"command line: {pair!r} is neither a .yaml file nor key=value")
    try:
        return OmegaConf.from_dotlist([pair])
    except (OmegaConfBaseException, YAMLError) as error:
        raise RecipeError(f"command line: {pair}: not valid YAML ({_one_line(error)})") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _section(cls: Any, values: Any, path: str, sources: Sources) -> Any:
    """An instance of the dataclass `cls` from `values`, the mapping at `path`."""
    if not isinstance(values, dict):
        raise RecipeError(f"{_source(path, sources)}: {path} must be a mapping, not {values!r}")
    hints = get_type_hints(cls)
    given = {}
    for key, value in values.items():
        where = f"{path}.{key}" if path else str(key)
        if key not in hints:
            hint = nearest(str(key), hints)
            raise RecipeError(f"{_source(where, sources)}: unknown key {where}; {hint}")
        given[key] = _value(hints[key], value, where, sources)
    for key in _required(cls):
        if key not in given:
            where, right = f"{path}.{key}".lstrip("."), _type_names(hints[key])
            raise RecipeError(f"{_source(path, sources)}: {where} is missing; it must be {right}")
    try:
        return cls(**given)
    except ValueError as error:
        raise RecipeError(f"{_source(_key_of(error, path, sources), sources)}: {error}") from error


def _required(cls: Any) -> list[str]:
    """The fields without a default."""
    found = (f for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING)
    return [field.name for field in found]


def _key_of(error: ValueError, path: str, sources: Sources) -> str:
    """The key that the message of `error` begins with; `path` if no source sets that key."""
    key = str(error).partition(" ")[0]
    return key if any(_sets(config, key) for _, config in sources) else path


def _value(hint: Any, value: Any, where: str, sources: Sources) -> Any:
    if dataclasses.is_dataclass(hint):
        return _section(hint, {} if value is None else value, where, sources)
    if hint is dict and value is None:
        return {}
    if not _fits(value, hint):
        source, right = _source(where, sources), _type_names(hint)
        raise RecipeError(f"{source}: {where} is {value!r} ({type(value).__name__}); it must be {right}")
    return float(value) if hint is float else value


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if get_origin(hint) is list:
        return isinstance(value, list) and all(_fits(item, get_args(hint)[0]) for item in value)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def _type_names(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_type_names(option) for option in get_args(hint))
    if get_origin(hint) is list:
        return f"a list of {_type_names(get_args(hint)[0])}"
    names = {int: "an integer", float: "a number", str: "text", bool: "true or false", dict: "a mapping"}
    return names.get(hint, "null")


def _algorithms(listed: dict, sources: Sources) -> dict[str, dict]:
    """The options of each technique that is switched on, by name."""
    chosen = {}
    for name, options in listed.items():
        where = f"algorithms.{name}"
        if name not in REGISTRY:
            hint = nearest(str(name), REGISTRY)
            raise RecipeError(f"{_source(where, sources)}: unknown technique {where}; {hint}")
        if options is False:
            continue
        options = {} if options in (None, True) else _field_names(options)
        _section(REGISTRY[name], options, where, sources)
        chosen[name] = options
    return chosen


def _field_names(options: Any) -> Any:
    """`options` with Python's keywords, such as `except`, spelt as fields of a dataclass: `except_`."""
    if not isinstance(options, dict):
        return options
    return {f"{key}_" if keyword.iskeyword(str(key)) else key: value for key, value in options.items()}


def _check_time(path: str, value: Any, sources: Sources) -> None:
    if value is None:
        return
    try:
        Time.from_timestring(value)
    except (ValueError, TypeError) as error:
        right = "a number with a unit, such as 70000ba, 1ep, 1000sp or 0.06dur"
        raise RecipeError(f"{_source(path, sources)}: {path} is {value!r}; it must be {right}") from error


def _source(path: str, sources: Sources) -> str:
    """The name of the last source that sets `path`, or of the first source if none does."""
    for name, config in reversed(sources):
        if not path or _sets(config, path):
            return name
    return sources[0][0]


def _sets(config: Any, path: str) -> bool:
    """Whether `config` sets `path`, be it to an interpolation of another source's value or to `???`."""
    try:
        return OmegaConf.select(config, path, default=_sets, throw_on_missing=True) is not _sets
    except OmegaConfBaseException:
        return True
