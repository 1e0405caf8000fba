"""Errors of the data, and checks of its options."""

from collections.abc import Collection
from typing import Any


class DataError(ValueError):
    """Data that can't be had as configured. One line: what was wrong, where, and what would be right."""

    def __init__(self, message: str) -> None:
        # torch raises an error of a loading process anew, with the whole traceback as its message.
        super().__init__(message.rpartition(f"{type(self).__module__}.DataError: ")[2].rstrip("\n"))


def one_line(error: Exception, length: int = 200) -> str:
    """The type of `error` and the first `length` characters of its message, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:length]}"


def check_minimum(cfg: Any, **minimums: int) -> None:
    """Raise `DataError` if an option of `cfg`, the section `data`, is below its minimum; None passes."""
    for key, minimum in minimums.items():
        value = getattr(cfg, key)
        if value is not None and value < minimum:
            raise DataError(f"data.{key} is {value}; it must be at least {minimum}")


def check_choice(key: str, value: str, valid: tuple[str, ...], condition: str = "") -> None:
    """Raise `DataError` if the option `key` of the section `data` isn't `valid`."""
    if value not in valid:
        raise DataError(f"data.{key} is {value!r}; {condition}it must be {' or '.join(valid)}")


def check_field(key: str, field: str, fields: Collection[str], where: str) -> None:
    """Raise `DataError` if `field`, the value of the option `key`, isn't one of the `fields` of `where`."""
    if field not in fields:
        raise DataError(f"data.{key}: {where} has no {field!r}; it has {', '.join(fields) or 'nothing'}")
