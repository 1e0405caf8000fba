"""Bad rows: an error, or left out and counted."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cadenza.data.errors import BadRow, DataError
from cadenza.data.ranks import show


def kept(
    rows: Iterable[Any], skip: bool, source: str, say: Callable[[str], Any] | None = None
) -> Iterator[Any]:
    """The documents among `rows`; of one pass with bad rows, their number and the first one are printed.

    Args:
        rows: the document of each row, or the error that stands in its place.
        skip: whether to leave out a `BadRow`, rather than to raise it. Other errors are raised.
        source: how a message begins.
        say: is handed the line about bad rows, in place of printing it.

    Raises:
        DataError: every row is bad.
    """
    good, bad, first = 0, 0, None
    try:
        for row in rows:
            if not isinstance(row, DataError):
                good += 1
                yield row
            elif skip and isinstance(row, BadRow):
                bad, first = bad + 1, first or row
            else:
                raise row
    finally:
        if first and good:
            (say or show)(
                f"{source}: {bad:,} of {good + bad:,} rows are bad and left out; the first: {first}"
            )
    if first and not good:
        raise DataError(f"{source}: each of its {bad:,} rows is bad; the first: {first}") from first
