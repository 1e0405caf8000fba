"""The documents or rows of one file, by its kind."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from cadenza.data.errors import DataError
from cadenza.data.text.config import TextConfig
from cadenza.data.text.encoding import Document
from cadenza.data.text.files.columns import arrow_rows, parquet_rows
from cadenza.data.text.files.json_rows import json_lines, json_rows
from cadenza.data.text.files.kinds import kind_of
from cadenza.data.text.files.opened import Watch, named
from cadenza.data.text.files.place import Place, Reading
from cadenza.data.text.files.plain import plain_texts
from cadenza.data.text.files.tables import csv_rows, tsv_rows
from cadenza.data.text.rows import document_or_bad, without_anchor

READERS: dict[str, Callable[[Place], Iterator[Any]]] = {
    ".jsonl": json_lines,
    ".json": json_rows,
    ".csv": csv_rows,
    ".tsv": tsv_rows,
    ".parquet": parquet_rows,
    ".arrow": arrow_rows,
}

TEXT_ALONE = (".txt", ".csv", ".tsv")


def documents_of(path: str, cfg: TextConfig, key: str, watch: Watch = None) -> Iterator[Document | DataError]:
    """The document of each row of the file at `path`, or the error that stands in its place.

    Messages begin with `key`, the key in the recipe. An error that is raised concerns the whole file. `watch`
    is handed the file when it is opened.
    """
    kind = kind_of(path)
    if cfg.ids_field and kind in TEXT_ALONE:
        raise DataError(
            f"data.ids_field: {path} holds text alone; token ids are read of other kinds of files"
        )
    if cfg.domain_field and kind == ".txt":
        raise no_fields(path)
    reading = Reading(cfg.encoding, cfg.fields, partial(_document, cfg))
    place = Place(path, key, reading, watch=watch)
    with named(path, key, place):
        yield from _plain(place, cfg) if kind == ".txt" else READERS[kind](place)


def no_fields(source: str) -> DataError:
    """What to say of a source without fields where `data.domain_field` names one."""
    return DataError(f"data.domain_field: {source} has no fields; leave it null, or set data.domain_tag")


def _plain(place: Place, cfg: TextConfig) -> Iterator[Document | DataError]:
    for found in plain_texts(place, cfg.split_text):
        bad = isinstance(found, DataError)
        yield found if bad else without_anchor(found, cfg, f"{place.path}, up to {place.last},")


def rows_of(path: str, reading: Reading, key: str) -> Iterator[Any]:
    """What `reading` takes of each row of the file at `path`; errors as in `documents_of`."""
    kind, place = kind_of(path), Place(path, key, reading)
    if kind == ".txt":
        needed = " and ".join(f"data.{name}" for name in reading.fields)
        right = "name a file of .csv, .tsv, .jsonl, .json, .parquet or .arrow"
        raise DataError(f"{key}: {path} has no fields, which {needed} name; {right}")
    with named(path, key, place):
        yield from READERS[kind](place)


def _document(cfg: TextConfig, row: Any, where: str) -> Document | DataError:
    return document_or_bad(row, cfg, where)
