"""The text of rows: one field of each."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from cadenza.data.errors import BadRow, check_field
from cadenza.data.text.bad_rows import kept


class Texts:
    """The values of `field` in `rows`, a stream; with `skip`, bad rows are left out."""

    def __init__(self, rows: Iterable[Any], field: str, skip: bool = False) -> None:
        self.rows, self.field, self.skip = rows, field, skip

    def __iter__(self) -> Iterator[str]:
        found = (text_or_bad(row, self.field, "a row of the stream") for row in self.rows)
        return kept(found, self.skip, "data.source: the stream")

    def set_epoch(self, epoch: int) -> None:
        """Let a Hub stream shuffle anew."""
        if hasattr(self.rows, "set_epoch"):
            self.rows.set_epoch(epoch)  # pyright: ignore[reportAttributeAccessIssue]


class RepeatedFields(dict):
    """A JSON object in which the names in `repeated` stand more than once."""

    repeated: Collection[str] = ()


def column_of(field: str, columns: Collection[str], where: str) -> str:
    """The column with the text: `field` itself or, for `meta.body`, `meta`.

    Raises:
        DataError: there is no such column.
    """
    head = field.partition(".")[0]
    if field not in columns and head in columns:
        return head
    check_field("text_field", field, columns, where)
    return field


def text_or_bad(row: Any, field: str, where: str) -> str | BadRow:
    """`text_of`, or its error."""
    try:
        return text_of(row, field, where)
    except BadRow as error:
        return error


def text_of(row: Any, field: str, where: str) -> str:
    """The text in `field` of `row`, a mapping; in `meta.body`, that in `body` of `meta`.

    A field whose name has the dot in it is preferred.

    Raises:
        BadRow: there is no such field, or no text in it; the message names `where`.
    """
    text = _value(row, field, where)
    if not isinstance(text, str):
        raise BadRow(f"data.text_field: {field!r} of {where} holds {type(text).__name__}, not text")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can say it, UTF-8 can't
        half, column = hex(ord(text[error.start])), error.start + 1
        message = f"{field!r} of {where} holds half a character ({half}, a lone surrogate, at {column})"
        raise BadRow(f"data.text_field: {message}; write both halves, or leave it out") from error
    return text


def _value(row: Any, field: str, where: str) -> Any:
    if field in row:
        return _named(row, field, where)
    value, outer = row, ""
    for name in field.split("."):
        if not isinstance(value, Mapping) or name not in value:
            raise BadRow(f"data.text_field: {where} has no {field!r}; {_instead(value, outer)}")
        value, outer = _named(value, name, where), f"{outer}.{name}".lstrip(".")
    return value


def _named(row: Any, name: str, where: str) -> Any:
    if isinstance(row, RepeatedFields) and name in row.repeated:
        raise BadRow(
            f"data.text_field: {where} has {name!r} more than once; which one is meant isn't defined"
        )
    return row[name]


def _instead(value: Any, outer: str) -> str:
    """What is there: `it has a, b`, or of a field within another one `'meta' has a, b`."""
    if not isinstance(value, Mapping):
        return f"{outer!r} is of type {type(value).__name__}"
    return f"{repr(outer) if outer else 'it'} has {', '.join(map(str, value)) or 'nothing'}"
