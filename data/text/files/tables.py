"""Rows of .csv and .tsv: quoted as in RFC 4180, with the names of the columns in the first line."""

import csv
import io
import sys
from collections.abc import Iterator
from typing import Any

from cadenza.data.errors import DataError, check_field
from cadenza.data.text.files.encodings import unfit
from cadenza.data.text.files.place import Place
from cadenza.data.text.files.plain import NUL

OPEN = "opens a quote that isn't closed before the end of the file"


def csv_rows(place: Place) -> Iterator[Any]:
    """The rows of `place`, whose columns are separated by commas."""
    return _rows(place, ",")


def tsv_rows(place: Place) -> Iterator[Any]:
    """The rows of `place`, whose columns are separated by tabs."""
    return _rows(place, "\t")


def _rows(place: Place, delimiter: str) -> Iterator[Any]:
    with place.decoded(newline=None) as file:
        rows = _Rows(file, place, delimiter)
        header = next(rows, [])
        if isinstance(header, DataError):
            raise DataError(str(header)) from header
        if header:
            yield from _taken(_columns(header, place), rows, place)


def _columns(header: list[str], place: Place) -> dict[str, int]:
    """The index of each field that is needed."""
    for key, field in place.reading.fields.items():
        check_field(key, field, header, place.path)
        if header.count(field) > 1:
            raise DataError(f"{place.file} has more than one column {field!r}")
    return {field: header.index(field) for field in place.reading.fields.values()}


def _taken(columns: dict[str, int], rows: "_Rows", place: Place) -> Iterator[Any]:
    for row in rows:
        if isinstance(row, DataError):
            yield row
        else:
            yield place.take({field: row[index] for field, index in columns.items()}, rows.start)


class _Rows:
    """The rows of a table, or what is wrong with them; those without a cell are left out.

    Each must have as many cells as the first one. `start` is the line in which the last one begins.
    """

    def __init__(self, lines: io.TextIOWrapper, place: Place, delimiter: str) -> None:
        csv.field_size_limit(sys.maxsize)  # else a cell has at most 131,072 characters
        self.lines, self.place, self.columns, self.start = lines, place, 0, 1
        self.reader = csv.reader(self._fed(), delimiter=delimiter, strict=True)
        self.problem: DataError | None = None
        self.last_line, self.ended = "\n", False

    def __iter__(self) -> Iterator[list[str] | DataError]:
        return self

    def __next__(self) -> list[str] | DataError:
        while True:
            self.start, self.problem = self.place.number + 1, None
            try:
                row = next(self.reader)
            except csv.Error as error:
                return self._malformed(error)
            if len(row) > 1 or "".join(row).strip():
                return self._checked(row)

    def _fed(self) -> Iterator[str]:
        for line in self.place.counted(self.lines):
            self.last_line = line
            if self.problem is None and (found := unfit(line, self.place.reading.encoding)):
                self.problem = self.place.bad(found[1], cut=not line.endswith("\n"))
            elif self.problem is None and "\0" in line:
                self.problem = self.place.bad(NUL)
            yield line
        self.ended = True

    def _malformed(self, error: csv.Error) -> DataError:
        if self.ended:
            return DataError(f"{self.place.file} line {self.start} {OPEN}")
        return self.problem or self.place.bad(f"isn't quoted as a cell is ({error})", self.start)

    def _checked(self, row: list[str]) -> list[str] | DataError:
        if self.problem:
            return self.problem
        self.columns = self.columns or len(row)
        if len(row) == self.columns:
            return row
        problem = f"has {len(row)} cells; the first line has {self.columns}"
        return self.place.bad(problem, self.start, cut=not self.last_line.endswith("\n"))
