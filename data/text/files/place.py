"""How far a file is read."""

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from cadenza.data.errors import BadRow, DataError
from cadenza.data.text.files.opened import Watch, decoded

CUT = "; the file ends within this line, so it may be cut short"


@dataclass(frozen=True)
class Reading:
    """How the rows of files are read.

    Args:
        encoding: of text, JSON and tables.
        fields: the fields that are needed, by the option of the section `data` that names each.
        take: makes something of a row, a mapping with these fields, and of where it stands; or returns the
            error that stands in its place.
    """

    encoding: str
    fields: dict[str, str]
    take: Callable[[Any, str], Any]


@dataclass
class Place:
    """A file that is being read, and the last line or row of it that was.

    Args:
        key: the key of the recipe that names the file.
        unit: `line` or `row`.
        watch: is handed the file when it is opened.
    """

    path: str
    key: str
    reading: Reading
    unit: str = "line"
    number: int = 0
    watch: Watch = None

    @property
    def file(self) -> str:
        """How an error message about the whole file begins."""
        return f"{self.key}: {self.path}"

    @property
    def last(self) -> str:
        """Such as `line 5`."""
        return f"{self.unit} {self.number}"

    def decoded(self, newline: str | None) -> AbstractContextManager[io.TextIOWrapper]:
        """The text of the file; `newline` as in `open`."""
        return decoded(self.path, self.reading.encoding, self.file, newline, self.watch)

    def counted(self, rows: Iterable[str]) -> Iterator[str]:
        """`rows`, each of which becomes the last one."""
        for row in rows:
            self.number += 1
            yield row

    def take(self, row: Any, line: int | None = None) -> Any:
        """What the last row, or that of `line`, gives."""
        return self.reading.take(row, f"{self.path} {self.unit} {line or self.number}")

    def bad(self, problem: str, line: int | None = None, cut: bool = False) -> DataError:
        """The error that stands in the place of a row: of the last one, or of `line`.

        Where the file ends within it (`cut`), it isn't a `BadRow`, since the rest of the file may be missing.
        """
        message = f"{self.key}: {self.path} {self.unit} {line or self.number} {problem}"
        return DataError(message + CUT) if cut else BadRow(message)
