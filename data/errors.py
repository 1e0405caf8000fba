"""Errors of the data."""

from collections.abc import Collection


class DataError(ValueError):
    """Data that can't be had as configured. One line: what was wrong, where, and what would be right."""

    def __init__(self, message: str) -> None:
        # torch raises an error of a loading process anew, with the whole traceback as its message.
        name = f"{type(self).__module__}.{type(self).__name__}: "
        super().__init__(message.rpartition(name)[2].rstrip("\n"))


class BadRow(DataError):
    """A row without a text to use, in a source that can be read; `data.on_bad_row: skip` leaves it out."""


def one_line(error: Exception, length: int = 200) -> str:
    """The type of `error` and the first `length` characters of its message, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:length]}"


def check_field(key: str, field: str, fields: Collection[str], where: str) -> None:
    """Raise `DataError` if `field`, the value of the option `key`, isn't one of the `fields` of `where`."""
    if field not in fields:
        raise DataError(f"data.{key}: {where} has no {field!r}; it has {', '.join(fields) or 'nothing'}")
