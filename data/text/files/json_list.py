"""A JSON list that is read element by element."""

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

CHUNK = 1 << 16  # characters that are read together, at least
SPACE = " \t\n\r"


class JsonList:
    """The elements of the list in `file`, which was read up to its opening bracket.

    `text[slice(*span)]` is the last element as it stands. Only one element is in memory, and at most as much
    again of the file.

    Raises:
        ValueError: it isn't JSON, ends within the list, or goes on behind it.
    """

    def __init__(self, file: io.TextIOWrapper, fields: Callable[[list[tuple[str, Any]]], Any]) -> None:
        self.file, self.text, self.span = file, "", (0, 0)
        self.decode = json.JSONDecoder(object_pairs_hook=fields).raw_decode

    def __iter__(self) -> Iterator[Any]:
        if self._next() == "]":
            self._take()
        else:
            yield self._element()
            while (mark := self._take()) == ",":
                yield self._element()
            if mark != "]":
                raise ValueError(f"{mark!r} instead of a comma or ]" if mark else "it ends within the list")
        if found := self._next():
            raise ValueError(f"{found!r} behind the list")

    def _element(self) -> Any:
        self._next()
        while True:
            start = self.span[1]
            try:
                element, end = self.decode(self.text, start)
            except ValueError as error:
                if self._more():
                    continue
                raise ValueError(getattr(error, "msg", str(error))) from error  # its position is in `text`
            if end == len(self.text) and self._more():  # a number may go on
                continue
            self.span = start, end
            return element

    def _take(self) -> str:
        """Pass by the next character that isn't white space; empty at the end of the file."""
        found = self._next()
        self.span = self.span[1], self.span[1] + len(found)
        return found

    def _next(self) -> str:
        while True:
            start = self.span[1]
            while start < len(self.text) and self.text[start] in SPACE:
                start += 1
            self.span = start, start
            if start < len(self.text):
                return self.text[start]
            if not self._more():
                return ""

    def _more(self) -> bool:
        """Read on, as much again as is left: an element of any length is then decoded in linear time."""
        rest = self.text[self.span[1] :]
        found = self.file.read(max(CHUNK, len(rest)))
        self.text, self.span = rest + found, (0, 0)
        return bool(found)
