"""The document of rows: the text or the token ids in one field of each."""

import copy
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from torch.utils.data import get_worker_info

from cadenza.data.errors import BadRow, check_field
from cadenza.data.text.bad_rows import kept
from cadenza.data.text.config import TextConfig
from cadenza.data.text.encoding import Document


class Texts:
    """The documents in `rows`, a stream; bad rows are treated as `cfg` says."""

    def __init__(self, rows: Iterable[Any], cfg: TextConfig) -> None:
        self.rows, self.cfg = rows, cfg

    def __iter__(self) -> Iterator[Document]:
        found = (document_or_bad(row, self.cfg, "a row of the stream") for row in self.rows)
        return kept(found, self.cfg.on_bad_row == "skip", "data.source: the stream")

    def set_epoch(self, epoch: int) -> None:
        """Let a stream of the Hub, or of MDS, shuffle anew: as in this pass, whatever passes were before."""
        if hasattr(self.rows, "next_epoch"):
            self.rows.next_epoch = epoch  # pyright: ignore[reportAttributeAccessIssue]
        if hasattr(self.rows, "set_epoch"):
            if get_worker_info() is not None:
                # Processes that load share one number, and two that add to it at once make it too large.
                self.rows = copy.deepcopy(self.rows)
            self.rows.set_epoch(epoch)  # pyright: ignore[reportAttributeAccessIssue]


class RepeatedFields(dict):
    """A JSON object in which the names in `repeated` stand more than once."""

    repeated: Collection[str] = ()


def column_of(cfg: TextConfig, columns: Collection[str], where: str) -> str:
    """The column with the document: `text_field` itself or, for `meta.body`, `meta`; likewise `ids_field`.

    Raises:
        DataError: there is no such column.
    """
    key, field = cfg.field
    head = field.partition(".")[0]
    if field not in columns and head in columns:
        return head
    check_field(key, field, columns, where)
    return field


def document_or_bad(row: Any, cfg: TextConfig, where: str) -> Document | BadRow:
    """`text_of` or, with `data.ids_field`, `ids_of`; or its error."""
    try:
        return (ids_of if cfg.ids_field else text_of)(row, cfg.field[1], where)
    except BadRow as error:
        return error


def ids_of(row: Any, field: str, where: str) -> np.ndarray:
    """The token ids (tokens,) int32 in `field` of `row`: a list or an array of integers, not below zero.

    Raises:
        BadRow: there is no such field, or something else in it; the message names `where`.
    """
    value = _value(row, field, where, "ids_field")
    try:
        ids = np.asarray(value)
    except ValueError:  # lists of several lengths
        ids = np.asarray(None)
    if ids.size == 0:
        return np.zeros(0, dtype=np.int32)
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= 2**31:
        raise BadRow(f"data.ids_field: {field!r} of {where} holds no list of token ids, integers from 0 on")
    return ids.astype(np.int32)


def text_of(row: Any, field: str, where: str) -> str:
    """The text in `field` of `row`, a mapping; in `meta.body`, that in `body` of `meta`.

    A field whose name has the dot in it is preferred.

    Raises:
        BadRow: there is no such field, or no text in it; the message names `where`.
    """
    text = _value(row, field, where, "text_field")
    if not isinstance(text, str):
        raise BadRow(f"data.text_field: {field!r} of {where} holds {type(text).__name__}, not text")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can say it, UTF-8 can't
        half, column = hex(ord(text[error.start])), error.start + 1
        message = f"{field!r} of {where} holds half a character ({half}, a lone surrogate, at {column})"
        raise BadRow(f"data.text_field: {message}; write both halves, or leave it out") from error
    return text


def _value(row: Any, field: str, where: str, key: str) -> Any:
    if field in row:
        return _named(row, field, where, key)
    value, outer = row, ""
    for name in field.split("."):
        if not isinstance(value, Mapping) or name not in value:
            raise BadRow(f"data.{key}: {where} has no {field!r}; {_instead(value, outer)}")
        value, outer = _named(value, name, where, key), f"{outer}.{name}".lstrip(".")
    return value


def _named(row: Any, name: str, where: str, key: str) -> Any:
    if isinstance(row, RepeatedFields) and name in row.repeated:
        raise BadRow(f"data.{key}: {where} has {name!r} more than once; which one is meant isn't defined")
    return row[name]


def _instead(value: Any, outer: str) -> str:
    """What is there: `it has a, b`, or of a field within another one `'meta' has a, b`."""
    if not isinstance(value, Mapping):
        return f"{outer!r} is of type {type(value).__name__}"
    return f"{repr(outer) if outer else 'it'} has {', '.join(map(str, value)) or 'nothing'}"
