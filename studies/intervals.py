"""Means with intervals."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
CANT_TELL = "can't tell"


@dataclass(frozen=True)
class Interval:
    """A mean with the interval in which it lies at 95 % confidence; NaN without a second value."""

    mean: float
    low: float
    high: float

    @property
    def tells(self) -> bool:
        """Whether the sign of the mean is known: the interval doesn't hold 0."""
        return self.low > 0 or self.high < 0

    def signed(self, style: str, scale: float = 1) -> str:
        """The numbers times `scale` with their signs, each in `style`, and whether the sign is known."""
        mean, low, high = (format(scale * value, f"+{style}") for value in (self.mean, self.low, self.high))
        if math.isnan(self.low):
            return f"{mean} (one seed: {CANT_TELL})"
        return f"{mean} ({low} to {high})" + ("" if self.tells else f": {CANT_TELL}")


def interval(values: Sequence[float]) -> Interval:
    """The mean of `values` with Student's t-interval."""
    from scipy.stats import t  # of the extra `studies`

    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(mean, math.nan, math.nan)
    error = statistics.stdev(values) / math.sqrt(len(values))
    half = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error
    return Interval(mean, mean - half, mean + half)
