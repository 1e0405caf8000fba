"""Times of Composer, such as `70000ba`, `1ep` and `0.06dur`."""

from dataclasses import dataclass
from typing import Any

EXAMPLES = "70000ba, 1ep"
LONGEST = 10**15


@dataclass(frozen=True)
class Times:
    """Times above zero.

    Args:
        zero: whether the time may be zero.
        share: whether it may be a share of training, such as `0.06dur`.
    """

    zero: bool = False
    share: bool = True

    def wrong(self, value: Any) -> str:
        """Empty if `value` is a number with a unit, neither negative nor more than all of training."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return f"have a unit, such as {value}ep (passes over the data) or {value}ba (batches)"
        from composer.core import Time  # here, since it imports torch

        try:
            time: Any = Time.from_timestring(str(value) or "nothing")  # "" would be 0 seconds
        except (ValueError, TypeError, OverflowError):
            more = ", 1000sp or 0.06dur" if self.share else " or 1000sp"
            return f"be a number with a unit, such as {EXAMPLES}{more}"
        return self._out_of_range(time.value, is_share=time.unit.value == "dur")

    def _out_of_range(self, number: float, is_share: bool) -> str:
        if is_share and not self.share:
            return f"say how long all of training is, such as {EXAMPLES}; dur is a share of it"
        if not (number >= 0 if self.zero else number > 0):
            return "not be negative" if self.zero else "be above zero"
        if is_share and number > 1:
            return "be at most 1dur, which is all of training"
        return "" if number <= LONGEST else f"be at most {LONGEST:.0e}"

    def __str__(self) -> str:
        return f"a time{' or 0' * self.zero}{', no dur' * (not self.share)}"
