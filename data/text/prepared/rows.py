"""Rows of token ids in memory-mapped Arrow files, as `datasets` and pyarrow read them."""

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa

from cadenza.data.text.marks.domains import Domains

SCHEMA = pa.schema([("input_ids", pa.large_list(pa.int32())), ("document", pa.int64())])
DOMAIN = pa.field("domain", pa.int64())  # of rows that have one


class Rows(Sequence):
    """The rows of files in `SCHEMA`, one after another; row `i` is (tokens,) int32, read from the disk.

    `lengths` (rows,) int64 are the tokens of each row. `document` says which of the source's documents a row
    is of; the numbers never fall. `domains` are those of the rows, None without names.

    Args:
        paths: the files, each with one record batch.
        documents: rows of later documents are left out; None: all rows.
        names: of the domains, by their numbers in the files.
    """

    def __init__(
        self, paths: Sequence[Path], documents: int | None = None, names: Sequence[str] = ()
    ) -> None:
        self.paths, self.documents, self.names = paths, documents, names
        batches = [_mapped(path) for path in paths]
        columns = [batch.column("input_ids") for batch in batches]
        self.ids = [column.values.to_numpy(zero_copy_only=True) for column in columns]
        self.offsets = [column.offsets.to_numpy(zero_copy_only=True) for column in columns]
        self.starts = np.cumsum([0, *map(len, columns)]).tolist()
        numbers = _column(batches, "document")
        self.size = len(numbers) if documents is None else int(np.searchsorted(numbers, documents))
        self.lengths = np.concatenate([np.zeros(0, np.int64), *map(np.diff, self.offsets)])[: self.size]
        self.domains = Domains(names, _column(batches, DOMAIN.name)[: self.size]) if names else None

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.size))]
        if not 0 <= index < self.size:
            raise IndexError(f"row {index} of {self.size}")
        file = bisect_right(self.starts, index) - 1
        row, offsets = index - self.starts[file], self.offsets[file]
        return self.ids[file][offsets[row] : offsets[row + 1]]

    def __reduce__(self) -> tuple[Any, ...]:
        return Rows, (self.paths, self.documents, self.names)  # a process that loads maps the files itself


def write(path: Path, rows: list[np.ndarray], documents: list[int], domains: list[int]) -> None:
    """Write a file of `rows`, of the documents and domains with these numbers, whole or not at all.

    Without `domains` there is no column of them.
    """
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    ids = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int32)
    lists = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(ids.astype(np.int32, copy=False)))
    schema = SCHEMA.append(DOMAIN) if domains else SCHEMA
    columns = [pa.array(numbers, pa.int64()) for numbers in (documents, domains)]
    batch = pa.record_batch([lists, *columns][: len(schema)], schema=schema)
    temporary = path.with_suffix(".writing")
    with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        stream.write_batch(batch)
    temporary.replace(path)


def _column(batches: list[pa.RecordBatch], name: str) -> np.ndarray:
    """The numbers of a column of all files; a file without rows may lack the column."""
    found = [batch.column(name).to_numpy() for batch in batches if batch.num_rows]
    return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)


def _mapped(path: Path) -> pa.RecordBatch:
    return pa.ipc.open_stream(pa.memory_map(str(path))).read_next_batch()
