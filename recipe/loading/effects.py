"""Keys that a recipe sets and that have no effect, because of the value of another key."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from omegaconf import OmegaConf

from cadenza.options import declared
from cadenza.recipe.loading.sources import Sources, sets, source


def without_effect(recipe: Any, sources: Sources) -> Iterator[str]:
    """A line for each key that is set, not to null, and has no effect under the rest of the recipe."""
    for path, value, field in _fields(recipe, ""):
        only = declared(field).only
        if only is None or value is None or not any(sets(config, path) for _, config in sources):
            continue
        key, values = only
        if (found := _at(recipe, key)) not in values:
            yield f"{source(path, sources)}: {path} has no effect: {key} is {found}"


def _fields(values: Any, path: str) -> Iterator[tuple[str, Any, dataclasses.Field]]:
    for field in dataclasses.fields(values):
        where, value = f"{path}.{field.name}".lstrip("."), getattr(values, field.name)
        if dataclasses.is_dataclass(value):
            yield from _fields(value, where)
        else:
            yield where, value, field


def _at(recipe: Any, key: str) -> Any:
    return OmegaConf.select(OmegaConf.create(dataclasses.asdict(recipe)), key)
