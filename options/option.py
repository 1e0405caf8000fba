"""Fields of a dataclass that declare what they mean and which values fit."""

import copy
from dataclasses import MISSING, Field, dataclass, field
from functools import partial
from typing import Any

from cadenza.options.valid import Valid


@dataclass(frozen=True)
class Option:
    """What a field declares.

    Args:
        meaning: one sentence.
        valid: the values that fit; of a list, those of each item. None: all of the field's type.
        length: the number of items of a list.
        only: a key of the recipe and its values under which the option has an effect; None: always.
    """

    meaning: str = ""
    valid: Valid | None = None
    length: int | None = None
    only: tuple[str, tuple[str, ...]] | None = None


def option(
    default: Any = MISSING,
    meaning: str = "",
    valid: Valid | None = None,
    *,
    length: int | None = None,
    only: tuple[str, tuple[str, ...]] | None = None,
    repr: bool = True,
) -> Any:
    """A field of a dataclass; the arguments are those of `Option`.

    Each instance gets its own copy of `default`. The result is typed as `Any`, so that a checker of types
    takes it for a value of the field's type.
    """
    metadata = {"option": Option(meaning, valid, length, only)}
    if isinstance(default, list | dict):
        return field(default_factory=partial(copy.deepcopy, default), metadata=metadata, repr=repr)
    return field(default=default, metadata=metadata, repr=repr)


def declared(field: Field) -> Option:
    """What `field` declares; nothing, if it wasn't made by `option`."""
    return field.metadata.get("option", Option())
