"""Rows of JSON: one a line or, in a file of .json, the elements of a list."""

import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from cadenza.data.errors import DataError, one_line
from cadenza.data.text.files.encodings import BOM, unfit
from cadenza.data.text.files.fields import RepeatedFields
from cadenza.data.text.files.json_list import JsonList
from cadenza.data.text.files.place import Place


def json_lines(place: Place) -> Iterator[Any]:
    """The rows of `place`, a JSON object a line; blank lines are none."""
    with place.decoded(newline="\n") as file:
        yield from _of_lines(file, place)


def json_rows(place: Place) -> Iterator[Any]:
    """The rows of `place`, a list of JSON objects or JSON lines."""
    with place.decoded(newline="\n") as text:
        start = ""
        while (character := text.read(1)).isspace() or character == BOM:
            start += character
        if character == "[":
            yield from _of_list(text, place)
        else:
            begun = io.StringIO(start + character + text.readline(), newline="\n")
            yield from _of_lines(chain(begun, text), place)


def _of_lines(lines: Iterable[str], place: Place) -> Iterator[Any]:
    for line in place.counted(lines):
        text = line.strip().lstrip(BOM)  # files that were joined have a BOM within, too
        if text:
            yield _of_line(text, place, cut=not line.endswith("\n"))


def _of_line(text: str, place: Place, cut: bool) -> Any:
    if found := unfit(text, place.reading.encoding):
        return place.bad(found[1], cut=cut)
    try:
        row = json.loads(text, object_pairs_hook=_fields)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
        return place.bad(f"is not JSON ({one_line(error)})", cut=cut)
    return _taken(row, place)


def _of_list(text: io.TextIOWrapper, place: Place) -> Iterator[Any]:
    place.unit = "row"
    elements = JsonList(text, _fields)
    try:
        for row in elements:
            place.number += 1
            found = unfit(elements.text, place.reading.encoding, *elements.span)
            yield place.bad(found[1]) if found else _taken(row, place)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{place.file} is no whole JSON list after {place.last} ({one_line(error)})"
        ) from error


def _taken(row: Any, place: Place) -> Any:
    if not isinstance(row, dict):
        return place.bad(f"is of type {type(row).__name__}; it must be an object with fields")
    return place.take(row)


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        fields = RepeatedFields(fields)
        fields.repeated = {name for name, times in Counter(name for name, _ in pairs).items() if times > 1}
    return fields
