"""The fields of rows: those of nested mappings too, and what is said if one is missing."""

from collections.abc import Collection, Mapping
from typing import Any

from cadenza.data.errors import BadRow, check_field


class RepeatedFields(dict):
    """A JSON object in which the names in `repeated` stand more than once."""

    repeated: Collection[str] = ()


def column_of(key: str, field: str, columns: Collection[str], where: str) -> str:
    """The column with `field`, the value of the option `key`: itself or, of `meta.body`, `meta`.

    Raises:
        DataError: there is no such column.
    """
    head = field.partition(".")[0]
    if field not in columns and head in columns:
        return head
    check_field(key, field, columns, where)
    return field


def value_of(key: str, field: str, row: Any, where: str) -> Any:
    """What is in `field` of `row`, a mapping; in `meta.body`, what is in `body` of `meta`.

    A field whose name has the dot in it is preferred.

    Raises:
        BadRow: there is no such field; the message names the option `key` and `where`.
    """
    if field in row:
        return _named(row, field, where, key)
    value, outer = row, ""
    for name in field.split("."):
        if not isinstance(value, Mapping) or name not in value:
            raise BadRow(f"data.{key}: {where} has no {field!r}; {_instead(value, outer)}")
        value, outer = _named(value, name, where, key), f"{outer}.{name}".lstrip(".")
    return value


def text_in(key: str, field: str, row: Any, where: str) -> str:
    """The text in `field` of `row`.

    Raises:
        BadRow: there is no such field, or no text in it; the message names the option `key` and `where`.
    """
    text = value_of(key, field, row, where)
    if not isinstance(text, str):
        raise BadRow(f"data.{key}: {field!r} of {where} holds {type(text).__name__}, not text")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can say it, UTF-8 can't
        half, column = hex(ord(text[error.start])), error.start + 1
        message = f"{field!r} of {where} holds half a character ({half}, a lone surrogate, at {column})"
        raise BadRow(f"data.{key}: {message}; write both halves, or leave it out") from error
    return text


def _named(row: Any, name: str, where: str, key: str) -> Any:
    if isinstance(row, RepeatedFields) and name in row.repeated:
        raise BadRow(f"data.{key}: {where} has {name!r} more than once; which one is meant isn't defined")
    return row[name]


def _instead(value: Any, outer: str) -> str:
    """What is there: `it has a, b`, or of a field within another one `'meta' has a, b`."""
    if not isinstance(value, Mapping):
        return f"{outer!r} is of type {type(value).__name__}"
    return f"{repr(outer) if outer else 'it'} has {', '.join(map(str, value)) or 'nothing'}"
