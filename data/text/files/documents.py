"""The documents of one file, by its kind."""

from collections.abc import Callable, Iterator

from cadenza.data.errors import DataError
from cadenza.data.text.config import TextConfig
from cadenza.data.text.files.columns import arrow_texts, parquet_texts
from cadenza.data.text.files.json_rows import json_lines, json_texts
from cadenza.data.text.files.kinds import kind_of
from cadenza.data.text.files.opened import named
from cadenza.data.text.files.place import Place
from cadenza.data.text.files.plain import plain_texts
from cadenza.data.text.files.tables import csv_texts, tsv_texts

READERS: dict[str, Callable[[Place], Iterator[str | DataError]]] = {
    ".txt": plain_texts,
    ".jsonl": json_lines,
    ".json": json_texts,
    ".csv": csv_texts,
    ".tsv": tsv_texts,
    ".parquet": parquet_texts,
    ".arrow": arrow_texts,
}


def documents_of(path: str, cfg: TextConfig, key: str) -> Iterator[str | DataError]:
    """The text of each row of the file at `path`, or the error that stands in its place.

    Messages begin with `key`, the key in the recipe. An error that is raised concerns the whole file.
    """
    place = Place(path, key, cfg)
    with named(path, key, place):
        yield from READERS[kind_of(path)](place)
