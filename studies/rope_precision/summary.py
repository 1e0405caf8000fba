"""Means and spread over texts: D by shift and by key, and the change of the first key's scores by length."""

import statistics
from collections.abc import Iterator, Sequence

from cadenza.studies.report import Row

READINGS = "inside", "outside"


def by_shift(cells: Sequence[Row]) -> list[Row]:
    """A row for each mode and shift: mean and standard deviation of D, and the first key's share of it."""
    rows = []
    for key, own in _grouped(cells):
        row = {**key, "texts": len(own)}
        for reading in READINGS:
            total = _numbers(own, f"D, {reading}")
            row |= _moments(f"D, {reading}", total)
            first = sum(_numbers(own, f"{reading} 0"))
            row[f"first key's share, {reading}"] = first / sum(total) if sum(total) else None
        rows.append(row)
    return rows


def by_place(cells: Sequence[Row]) -> list[Row]:
    """A row for each mode, shift and span of keys: the mean part of D, and that of one key."""
    rows = []
    for key, own in _grouped(cells):
        for place in _suffixes(own[0], "inside "):
            keys = _size(place)
            row = {**key, "keys": place, "first": int(place.partition("-")[0])}
            for reading in READINGS:
                part = statistics.fmean(_numbers(own, f"{reading} {place}"))
                row |= {reading: part, f"{reading}, one key": part / keys}
            rows.append(row)
    return rows


def by_length(cells: Sequence[Row]) -> list[Row]:
    """A row for each mode, shift and number of queries: the difference of the scores of the first key."""
    rows = []
    for key, own in _grouped(cells):
        for length in _suffixes(own[0], "scores "):
            values = _numbers(own, f"scores {length}")
            size = {"|difference|": statistics.fmean(map(abs, values))}
            rows.append({**key, "tokens": int(length), **_moments("difference", values), **size})
    return rows


def _grouped(cells: Sequence[Row]) -> Iterator[tuple[Row, list[Row]]]:
    keys = dict.fromkeys((row["mode"], int(row["against"]), int(row["shift"])) for row in cells)
    for mode, against, shift in keys:
        own = [row for row in cells if row["mode"] == mode and int(row["shift"]) == shift]
        yield {"mode": mode, "against": against, "shift": shift}, own


def _numbers(rows: Sequence[Row], column: str) -> list[float]:
    return [float(row[column]) for row in rows]


def _moments(name: str, values: Sequence[float]) -> Row:
    """Mean, and standard deviation over texts; None of one text."""
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {name: statistics.fmean(values), f"{name}, deviation": spread}


def _suffixes(row: Row, start: str) -> list[str]:
    return [column.removeprefix(start) for column in row if column.startswith(start)]


def _size(place: str) -> int:
    first, _, last = place.partition("-")
    return int(last or first) - int(first) + 1
