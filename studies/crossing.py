"""Where a curve first reaches a value, on the line from the point before."""

from collections.abc import Sequence


def crossing(values: Sequence[float], goal: float) -> tuple[int, float] | None:
    """The first of `values` at or below `goal`, and the share of the way to it; None: there is none.

    The share lies in (0, 1], and is that from the value before. The first value has no other before it: 1.
    """
    for index, value in enumerate(values):
        if value <= goal:
            before = values[index - 1]
            return index, (before - goal) / (before - value) if index else 1.0
    return None
