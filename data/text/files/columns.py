"""Rows of .parquet and .arrow."""

from collections.abc import Iterator
from typing import IO, Any

from cadenza.data.errors import DataError, one_line
from cadenza.data.text.files.fields import column_of
from cadenza.data.text.files.opened import seekable
from cadenza.data.text.files.place import Place

FILE = b"ARROW1"  # how a file of the IPC file format begins
CONTINUES = b"\xff\xff\xff\xff"  # before each message of the stream format
END = CONTINUES + b"\0\0\0\0"


def parquet_rows(place: Place) -> Iterator[Any]:
    """The rows of `place`; only the columns that are needed are read."""
    import pyarrow.parquet as parquet

    def batches(file: IO[bytes]) -> Iterator[Any]:
        with parquet.ParquetFile(file, page_checksum_verification=True) as table:
            leaves = {path.path for path in _paths(table)}
            columns = _columns(table.schema_arrow.names, place)
            needed = {field if field in leaves else column for field, column in columns.items()}
            yield from table.iter_batches(columns=sorted(needed))

    return _rows(place, "parquet", batches)


def arrow_rows(place: Place) -> Iterator[Any]:
    """The rows of `place`, in Arrow's IPC file format or stream format."""
    return _rows(place, "arrow", lambda file: _arrow_batches(file, place))


def _rows(place: Place, kind: str, batches: Any) -> Iterator[Any]:
    import pyarrow as pa

    place.unit = "row"
    with seekable(place.path, place.watch) as file:
        try:
            for batch in batches(file):
                yield from _of_batch(batch, place)
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{place.file} can't be read as {kind} after {place.last} ({one_line(error)})"
            ) from error


def _of_batch(batch: Any, place: Place) -> Iterator[Any]:
    try:
        rows = batch.to_pylist()
    except UnicodeDecodeError:  # row by row, to find which
        rows = (batch.slice(index, 1) for index in range(batch.num_rows))
    for row in rows:
        place.number += 1
        try:
            value = row if isinstance(row, dict) else row.to_pylist()[0]
        except UnicodeDecodeError as error:
            yield place.bad(f"is not UTF-8 (byte 0x{error.object[error.start]:02x})")
        else:
            yield place.take(value)


def _arrow_batches(file: IO[bytes], place: Place) -> Iterator[Any]:
    import pyarrow as pa

    start = file.read(len(FILE))
    file.seek(0)
    if start == FILE:
        reader = pa.ipc.open_file(file)
        batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
    else:
        batches = reader = pa.ipc.open_stream(file)
    columns = sorted(set(_columns(reader.schema.names, place).values()))
    for batch in batches:
        batch = batch.select(columns)
        batch.validate(full=True)  # offsets of a damaged file would point anywhere in memory
        yield batch
    if start.startswith(CONTINUES):
        _check_end(file)


def _check_end(file: IO[bytes]) -> None:
    """A stream that was cut between two messages is read without an error."""
    file.seek(-len(END), 2)
    if file.read() != END:
        raise OSError("the mark of its end is missing; it may be cut short")


def _columns(names: list[str], place: Place) -> dict[str, str]:
    """The column with each field that is needed."""
    found = {field: column_of(key, field, names, place.path) for key, field in place.reading.fields.items()}
    for column in found.values():
        if names.count(column) > 1:
            raise DataError(f"{place.file} has more than one column {column!r}")
    return found


def _paths(table: Any) -> Iterator[Any]:
    return (table.schema.column(index) for index in range(len(table.schema)))
