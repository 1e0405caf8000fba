"""Parts of a study's settings that YAML gives as mappings."""

from dataclasses import dataclass, fields
from typing import Any

from cadenza.options import Text, option
from cadenza.recipe.errors import nearest


@dataclass
class RecipePart:
    """The recipe of a part of a study."""

    recipe: list[str] = option([], "Its files.", Text())
    overrides: list[str] = option([], "key=value pairs after them.", Text())


def given(cls: Any, key: str, values: Any) -> Any:
    """An instance of `cls`, whose fields are lists of text, from the mapping at `key`.

    Raises:
        ValueError: it isn't a mapping, or has a key or a value that doesn't fit.
    """
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ValueError(f"{key} is {values!r}; it must be a mapping")
    known = [field.name for field in fields(cls)]
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"{key}.{name} is no key of it; {nearest(str(name), known)}")
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ValueError(f"{key}.{name} is {value!r}; it must be a list of text")
    return cls(**values)
