"""Bad rows: an error, or left out and counted."""

from collections.abc import Iterable, Iterator

from composer.utils import dist

from cadenza.data.errors import BadRow, DataError


def kept(rows: Iterable[str | DataError], skip: bool, source: str) -> Iterator[str]:
    """The texts among `rows`; of one pass with bad rows, their number and the first one are printed.

    Args:
        rows: the text of each row, or the error that stands in its place.
        skip: whether to leave out a `BadRow`, rather than to raise it. Other errors are raised.
        source: how a message begins.

    Raises:
        DataError: every row is bad.
    """
    good, bad, first = 0, 0, None
    try:
        for row in rows:
            if isinstance(row, str):
                good += 1
                yield row
            elif skip and isinstance(row, BadRow):
                bad, first = bad + 1, first or row
            else:
                raise row
    finally:
        if first and good:
            _show(f"{source}: {bad:,} of {good + bad:,} rows are bad and left out; the first: {first}")
    if first and not good:
        raise DataError(f"{source}: each of its {bad:,} rows is bad; the first: {first}") from first


def _show(line: str) -> None:
    if dist.get_global_rank() == 0:
        print(line, flush=True)
