"""The values that fit an option: intervals, choices, texts; `times` has times.

`wrong(value)` is what the value must be, as the end of the sentence "it must ...", or empty if it fits.
`str` is the same for a table.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol


class Valid(Protocol):
    """The values that fit an option."""

    def wrong(self, value: Any) -> str:
        """How `value` must be changed, as the end of "it must ..."; empty if it fits."""
        ...


@dataclass(frozen=True)
class Range:
    """The numbers of an interval in the usual notation, such as `[0, 1)`, and the `words` beside them."""

    interval: str
    words: tuple[str, ...] = ()
    whole: bool = False

    def wrong(self, value: Any) -> str:
        """Empty if `value` is one of the words, or a number between the ends."""
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            kind = "an integer" if self.whole else "a number"
            return "" if value in self.words else f"be {_either((*self.words, f'{kind} in {self.interval}'))}"
        low, high = self.interval[1:-1].split(", ")
        from_low, to_high = self.interval[0] == "[", self.interval[-1] == "]"
        if not (value >= float(low) if from_low else value > float(low)):
            return f"be at least {low}" if from_low else f"lie in {self.interval}"
        if not (value <= float(high) if to_high else value < float(high)):
            return f"be at most {high}" if to_high else f"lie in {self.interval}"
        return ""

    def __str__(self) -> str:
        return _either((*self.words, self.interval))


class Choice:
    """One of some words."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def wrong(self, value: Any) -> str:
        """Empty if `value` is one of the words."""
        return "" if value in self.words else f"be {self}"

    def __str__(self) -> str:
        return _either(self.words)


class Text:
    """Text that isn't empty, such as a path or a name."""

    def wrong(self, value: Any) -> str:
        """Empty if `value` is a text of more than white space."""
        if not isinstance(value, str) or not value.strip():
            return "be a text that isn't empty"
        return "" if value.isprintable() else "hold printable characters alone"

    def __str__(self) -> str:
        return "not empty"


def finite(value: Any) -> bool:
    """Whether `value` isn't a number that is infinite or NaN."""
    return not isinstance(value, float) or math.isfinite(value)


def _either(words: tuple[str, ...]) -> str:
    """The words with `or` before the last."""
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
