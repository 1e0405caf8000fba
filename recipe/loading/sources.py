"""The sources of a recipe, files and `key=value` pairs: read, merged, and blamed for a wrong value."""

import warnings
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cadenza.options import shown
from cadenza.recipe.errors import RecipeError, nearest

Sources = list[tuple[str, Any]]  # (file name or "command line", its config)


def merged(files: list[str], pairs: list[str]) -> tuple[Any, Sources]:
    """The config of all sources, later ones before earlier ones, and each source's own.

    Raises:
        RecipeError: a missing file, invalid YAML, or a list in the place of a mapping.
    """
    sources = [(file, _read(file)) for file in files]
    sources += [("command line", _override(pair)) for pair in pairs]
    found: Any = OmegaConf.create()
    for name, config in sources:
        if clash := _clash(_plain(found), _plain(config), ""):
            raise RecipeError(f"{name}: {clash}")
        try:
            found = OmegaConf.merge(found, config)
        except (OmegaConfBaseException, TypeError) as error:
            raise RecipeError(f"{name}: {one_line(error)}") from error
    _show_empty(files, sources)
    return found, sources


def values_of(config: Any, sources: Sources) -> dict[str, Any]:
    """The values of `config`, with interpolations resolved.

    Raises:
        RecipeError: an interpolation that can't be resolved; the message names its source.
    """
    try:
        values: Any = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        name = source(str(error.full_key or ""), sources)
        raise RecipeError(f"{name}: {one_line(error)}") from error
    return values


def source(path: str, sources: Sources) -> str:
    """The name of the last source that sets `path`, or of the first source if none does."""
    for name, config in reversed(sources):
        if not path or sets(config, path):
            return name
    return sources[0][0] if sources else "recipe"


def sets(config: Any, path: str) -> bool:
    """Whether `config` sets `path`, be it to an interpolation of another source's value or to `???`."""
    try:
        return OmegaConf.select(config, path, default=sets, throw_on_missing=True) is not sets
    except OmegaConfBaseException:
        return True


def one_line(error: Exception) -> str:
    """The message of `error` in one line."""
    return " ".join(str(error).split())


def _read(file: str) -> Any:
    path = Path(file).expanduser()
    if path.is_dir():
        raise RecipeError(f"{file}: this is a folder; a recipe is a .yaml file")
    if not path.is_file():
        nearby = [str(p) for p in path.parent.glob("*.yaml")] or ["yamls/*.yaml"]
        raise RecipeError(f"{file}: there is no such file; {nearest(file, nearby)}")
    try:
        config = OmegaConf.load(path)
    except Exception as error:
        raise RecipeError(f"{file}: not valid YAML ({one_line(error)})") from error
    if not OmegaConf.is_dict(config):
        raise RecipeError(f"{file}: a recipe is a mapping of keys to values")
    return config


def _override(pair: str) -> Any:
    key, equals, _ = pair.partition("=")
    if not equals or not key:
        raise RecipeError(f"command line: {pair!r} is neither a .yaml file nor key=value")
    if "[" in key:
        whole = key.partition("[")[0]
        right = f"a list is set as a whole, such as {whole or 'key'}=[1,2]"
        raise RecipeError(f"command line: {key} is no key; {right}")
    try:
        return OmegaConf.from_dotlist([pair])
    except (OmegaConfBaseException, YAMLError) as error:
        quotes = f"; in a shell a pair with spaces needs quotes: '{pair} ...'" if _open(pair) else ""
        raise RecipeError(f"command line: {pair}: not valid YAML ({one_line(error)}){quotes}") from error


def _open(pair: str) -> bool:
    """Whether a bracket of `pair` isn't closed."""
    return any(pair.count(left) > pair.count(right) for left, right in ("{}", "[]"))


def _plain(config: Any) -> Any:
    return OmegaConf.to_container(config, resolve=False)


def _clash(before: Any, after: Any, path: str) -> str:
    """What is wrong where a mapping meets a list, which OmegaConf can't merge."""
    if isinstance(before, dict) and isinstance(after, dict):
        shared = ((before[k], v, f"{path}.{k}".lstrip(".")) for k, v in after.items() if k in before)
        return next(filter(None, (_clash(*each) for each in shared)), "")
    if isinstance(before, dict) and isinstance(after, list):
        return f"{path} must be a mapping, not {shown(after)}"
    if isinstance(before, list) and isinstance(after, dict):
        return f"{path} must be a list, not {shown(after)}"
    return ""


def _show_empty(files: list[str], sources: Sources) -> None:
    everything = not any(config for _, config in sources)
    for file, config in sources[: len(files)]:
        if not config:
            means = "this is the default recipe" if everything else "it changes nothing"
            warnings.warn(f"{file} holds no keys: {means}", stacklevel=2)
