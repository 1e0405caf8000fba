"""The document of rows: the text or the token ids in one field of each."""

import copy
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import numpy as np
from torch.utils.data import get_worker_info

from cadenza.data.errors import BadRow
from cadenza.data.text.bad_rows import kept
from cadenza.data.text.config import TextConfig
from cadenza.data.text.encoding import Document
from cadenza.data.text.files import fields
from cadenza.data.text.files.fields import text_in, value_of
from cadenza.data.text.marks.domains import OfDomain


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


def check_columns(cfg: TextConfig, columns: Collection[str], where: str) -> None:
    """Raise `DataError` if a field that is read has no column, as `fields.column_of`."""
    for key, field in cfg.fields.items():
        fields.column_of(key, field, columns, where)


def document_or_bad(row: Any, cfg: TextConfig, where: str) -> Document | BadRow:
    """`text_of` or, with `data.ids_field`, `ids_of`, with its domain if there is one; or its error."""
    try:
        found = (ids_of if cfg.ids_field else text_of)(row, cfg.field[1], where)
        if cfg.domain_field is not None:
            found = OfDomain(found, domain_in(row, cfg.domain_field, where))
    except BadRow as error:
        return error
    return without_anchor(found, cfg, where)


def domain_in(row: Any, field: str, where: str) -> str:
    """The name of a domain in `field` of `row`; errors as in `text_in`, and one for white space alone."""
    domain = text_in("domain_field", field, row, where)
    if not domain.strip():
        raise BadRow(f"data.domain_field: {field!r} of {where} is empty; it must name a domain")
    return domain


def without_anchor(document: Document, cfg: TextConfig, where: str) -> Document | BadRow:
    """`document`, or the error that stands in its place if `data.anchor_token` is in its text or domain."""
    parts = (document.content, document.domain) if isinstance(document, OfDomain) else (document,)
    token = cfg.anchor_token
    if token is None or not any(isinstance(part, str) and token in part for part in parts):
        return document
    right = "leave it out, set data.on_bad_row=skip, or name another token"
    return BadRow(f"data.anchor_token: {where} holds {token!r}; {right}")


def ids_of(row: Any, field: str, where: str) -> np.ndarray:
    """The token ids (tokens,) int32 in `field` of `row`: a list or an array of integers, not below zero.

    Raises:
        BadRow: there is no such field, or something else in it; the message names `where`.
    """
    value = value_of("ids_field", field, row, where)
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
    """The text in `field` of `row`; errors as in `text_in`."""
    return text_in("text_field", field, row, where)
