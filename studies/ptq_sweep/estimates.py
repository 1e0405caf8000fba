"""Estimates with intervals, and what they answer: yes, no, or that they can't tell."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from cadenza.studies.intervals import CANT_TELL, CONFIDENCE, Interval, interval
from cadenza.studies.ptq_sweep.results import Values
from cadenza.studies.verdicts import NO, YES

UNKNOWN = Interval(math.nan, math.nan, math.nan)


def mean(values: Values) -> Interval:
    """The mean over windows or prompts, of one model or several; NaN without any."""
    return interval(list(values.values())) if values else UNKNOWN


def ratio(first: Values, second: Values) -> Interval:
    """The geometric mean over windows of first / second, which must be positive; otherwise it isn't known."""
    pairs = [(value, second[unit]) for unit, value in first.items() if unit in second]
    if not pairs or min(map(min, pairs)) <= 0:
        return UNKNOWN
    return exp(interval([math.log(one / other) for one, other in pairs]))


def exp(found: Interval) -> Interval:
    """The interval of a number from that of its logarithm."""
    return Interval(*(math.exp(value) for value in (found.mean, found.low, found.high)))


def root(found: Interval) -> Interval:
    """The interval of a root mean square from that of the mean square, whose lower end may be below 0."""
    return Interval(*(math.sqrt(max(v, 0.0)) for v in (found.mean, found.low, found.high)))


def middle(values: Sequence[float]) -> Interval:
    """The median, and the order statistics that hold it at 95 % whatever the distribution (sign test).

    With fewer than 6 values there are none.
    """
    ordered, n, tail, rank = sorted(values), len(values), 0.0, 0
    while tail + math.comb(n, rank) / 2**n <= (1 - CONFIDENCE) / 2:
        tail += math.comb(n, rank) / 2**n
        rank += 1
    if rank == 0:
        return Interval(median(values), math.nan, math.nan)
    return Interval(median(values), ordered[rank - 1], ordered[n - rank])


def within(found: Interval, low: float, high: float) -> str:
    """Whether a number lies between `low` and `high`: the margin of an equivalence."""
    if low < found.low and found.high < high:
        return YES
    return NO if found.high < low or found.low > high else CANT_TELL


def shown(found: Interval, style: str = "+.3g", scale: float = 1) -> str:
    """The estimate with its interval; a number alone where there is none."""
    mid, low, high = (format(scale * value, style) for value in (found.mean, found.low, found.high))
    return mid if math.isnan(found.low) else f"{mid} ({low} to {high})"


def chance(values: Values) -> float:
    """The p-value of a mean other than 0, by the t-test; 1 without a second value."""
    from scipy.stats import ttest_1samp  # of the extra `studies`

    each = list(values.values())
    if len(each) < 2:
        return 1.0
    if len(set(each)) == 1:
        return float(each[0] == 0)
    return float(ttest_1samp(each, 0).pvalue)


@dataclass(frozen=True)
class Finding:
    """A question, its answer, and the numbers."""

    question: str
    verdict: str
    numbers: str

    def __str__(self) -> str:
        return f"- {self.question}: **{self.verdict}**. {self.numbers}"
