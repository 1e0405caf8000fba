"""The one check of declared options, in recipes and in the constructors of techniques and configs."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from cadenza.options.option import Option, declared
from cadenza.options.valid import finite

LONGEST = 80  # characters of a value that a message shows


def problem(where: str, value: Any, option: Option) -> str:
    """What is wrong with `value`, the option that a message calls `where`; empty if it fits.

    None always fits. Numbers within lists and mappings must be finite, too.
    """
    if isinstance(value, list | tuple) and option.length not in (None, len(value)):
        return f"{where} is {shown(value)}; it must hold {option.length} values"
    return next(_problems(where, value, option), "")


def check(options: Any, prefix: str, error: type[Exception]) -> None:
    """Raise `error` for the first field of the dataclass `options` whose value doesn't fit.

    Args:
        options: an instance of a dataclass.
        prefix: what a message says before a field's name, such as `data.`.
        error: the class of the exception.
    """
    for field in fields(options):
        if found := problem(f"{prefix}{field.name}", getattr(options, field.name), declared(field)):
            raise error(found)


def _problems(where: str, value: Any, option: Option) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _problems(f"{where}.{key}", item, Option())
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _problems(f"{where}[{index}]", item, option)
    elif value is not None:
        must = "be a finite number" if not finite(value) else option.valid and option.valid.wrong(value)
        if must:
            yield f"{where} is {shown(value)}; it must {must}"


def shown(value: Any) -> str:
    """`value` in a message: of a long one the beginning."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
