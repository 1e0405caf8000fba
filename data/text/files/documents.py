"""The documents of one file, by its kind."""

from collections.abc import Callable, Iterator

from cadenza.data.errors import DataError
from cadenza.data.text.config import TextConfig
from cadenza.data.text.encoding import Document
from cadenza.data.text.files.columns import arrow_texts, parquet_texts
from cadenza.data.text.files.json_rows import json_lines, json_texts
from cadenza.data.text.files.kinds import kind_of
from cadenza.data.text.files.opened import Watch, named
from cadenza.data.text.files.place import Place
from cadenza.data.text.files.plain import plain_texts
from cadenza.data.text.files.tables import csv_texts, tsv_texts

READERS: dict[str, Callable[[Place], Iterator[Document | DataError]]] = {
    ".txt": plain_texts,
    ".jsonl": json_lines,
    ".json": json_texts,
    ".csv": csv_texts,
    ".tsv": tsv_texts,
    ".parquet": parquet_texts,
    ".arrow": arrow_texts,
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
    place = Place(path, key, cfg, watch=watch)
    with named(path, key, place):
        yield from READERS[kind](place)
