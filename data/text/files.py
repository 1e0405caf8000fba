"""Documents of files: one a row of JSON lines or of parquet, one a file of plain text.

A file that can't be read as it stands is a `DataError`, which names the file and the line or the row.
"""

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from cadenza.data.errors import DataError, check_field, one_line
from cadenza.data.text.rows import text_of

FILES = (".jsonl", ".jsonl.gz", ".json.gz", ".txt", ".parquet")
BOM = "\ufeff"


def documents_of(path: str, field: str, key: str) -> Iterator[str]:
    """The documents of the file at `path`; error messages begin with `key`, the key in the recipe."""
    with _reading(path, key):
        if path.endswith(".txt"):
            yield _plain(Path(path).read_bytes(), f"{key}: {path}")
        elif path.endswith(".parquet"):
            yield from _parquet(path, field, key)
        else:
            yield from _json_lines(path, field, key)


@contextmanager
def _reading(path: str, key: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{key}: {path} can't be read ({one_line(error)})") from error


def _plain(content: bytes, where: str) -> str:
    if (found := content.find(b"\0")) >= 0:
        line = _line(content, found)
        raise DataError(f"{where} line {line} holds a NUL byte: it is binary, or UTF-16; convert it to UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(f"{where} line {_line(content, error.start)}", error) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _line(content: bytes, at: int) -> int:
    return content.count(b"\n", 0, at) + 1


def _json_lines(path: str, field: str, key: str) -> Iterator[str]:
    for number, line in enumerate(_lines(path, key), 1):
        where = f"{path} line {number}"
        try:
            text = line.decode().strip().lstrip(BOM)  # files that were joined have a BOM within, too
        except UnicodeDecodeError as error:
            raise _not_utf8(f"{key}: {where}", error) from error
        if text:
            yield text_of(_object(text, field, where, key), field, where)


def _lines(path: str, key: str) -> Iterator[bytes]:
    with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
        number = 0
        try:
            if path.endswith(".gz") and Path(path).stat().st_size == 0:
                raise EOFError("no bytes at all")  # gzip would read it as a file without lines
            for line in file:
                number += 1
                yield line
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            where = f"{path} is cut short or no gzip file after line {number}"
            raise DataError(f"{key}: {where} ({one_line(error)}); fetch it again") from error


class _Repeated(dict):
    """A JSON object in which the names in `repeated` stand more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated = {name for name, times in Counter(name for name, _ in pairs).items() if times > 1}


def _object(line: str, field: str, where: str, key: str) -> dict[str, Any]:
    try:
        row = json.loads(line, object_pairs_hook=_fields)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
        raise DataError(f"{key}: {where} is not JSON ({one_line(error)})") from error
    if not isinstance(row, dict):
        raise DataError(f"{key}: {where} is of type {type(row).__name__}; it must be an object with fields")
    if isinstance(row, _Repeated) and field in row.repeated:
        raise DataError(f"{key}: {where} has {field!r} more than once; which one is meant isn't defined")
    return row


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else _Repeated(pairs)


def _parquet(path: str, field: str, key: str) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    numbers = count(1)
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            names = file.schema_arrow.names
            check_field("text_field", field, names, path)
            if names.count(field) > 1:
                raise DataError(f"{key}: {path} has more than one column {field!r}")
            for batch in file.iter_batches(columns=[field]):
                for row in batch.to_pylist():
                    yield text_of(row, field, f"{path} row {next(numbers)}")
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        message = f"{key}: {path} can't be read as parquet after row {next(numbers) - 1} ({one_line(error)})"
        raise DataError(message) from error


def _not_utf8(where: str, error: UnicodeDecodeError) -> DataError:
    byte = error.object[error.start]
    right = "convert it to UTF-8, such as by iconv -f latin1 -t utf-8"
    return DataError(f"{where} is not UTF-8 (byte 0x{byte:02x}); {right}")
