"""The text of rows: one field of each."""

from collections.abc import Iterable, Iterator
from typing import Any

from cadenza.data.errors import DataError, check_field


class Texts:
    """The values of `field` in `rows`, a stream."""

    def __init__(self, rows: Iterable[Any], field: str) -> None:
        self.rows, self.field = rows, field

    def __iter__(self) -> Iterator[str]:
        for row in self.rows:
            yield text_of(row, self.field, "a row of the stream")

    def set_epoch(self, epoch: int) -> None:
        """Let a Hub stream shuffle anew."""
        if hasattr(self.rows, "set_epoch"):
            self.rows.set_epoch(epoch)  # pyright: ignore[reportAttributeAccessIssue]


def text_of(row: Any, field: str, where: str) -> str:
    """The text in `field` of `row`, a mapping; a `DataError` names `where`."""
    check_field("text_field", field, row, where)
    text = row[field]
    if not isinstance(text, str):
        raise DataError(f"data.text_field: {field!r} of {where} holds {type(text).__name__}, not text")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can say it, UTF-8 can't
        half, column = hex(ord(text[error.start])), error.start + 1
        message = f"{field!r} of {where} holds half a character ({half}, a lone surrogate, at {column})"
        raise DataError(f"data.text_field: {message}; write both halves, or leave it out") from error
    return text
