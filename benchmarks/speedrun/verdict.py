"""Whether a candidate is a record: its loss, and its time against the last record's."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from cadenza.studies.checks import StudyError
from cadenza.studies.intervals import Interval, interval
from cadenza.studies.report import Row

SEEDS = 3  # at least
RECORD, FIRST = "record", "first record"
MISSED, SLOWER, UNSURE = "loss missed", "slower", "not significant"


@dataclass(frozen=True)
class Verdict:
    """What was found.

    Args:
        loss: the mean over seeds, which must not exceed the target.
        ratio: of the seconds to the last record's, paired by seed: the geometric mean with Student's
            t-interval of the logarithms; None of the first record.
        cpu_ratio: the same of CPU seconds.
    """

    name: str
    loss: float
    ratio: Interval | None
    cpu_ratio: Interval | None

    @property
    def is_record(self) -> bool:
        """Whether it is one."""
        return self.name in (RECORD, FIRST)


def judged(new: Sequence[Row], old: Sequence[Row], target: float) -> Verdict:
    """The verdict on the runs `new` against those of the last record, both in the order of their seeds.

    Those of the first record have no others, `old` is empty.

    Raises:
        StudyError: fewer seeds than three, or runs that can't be compared.
    """
    if len(new) < SEEDS:
        raise StudyError(f"--seeds: there are {len(new)}; a record takes {SEEDS} at least")
    digests = {row["digest"] for row in (*new, *old)}
    if len(digests) > 1:
        raise StudyError(
            f"the runs' digests differ ({', '.join(sorted(digests))}): their losses mean nothing"
        )
    loss = statistics.fmean(float(row["loss"]) for row in new)
    ratio, cpu = (paired(new, old, key) if old else None for key in ("seconds", "cpu_seconds"))
    return Verdict(_name(loss, ratio, target), loss, ratio, cpu)


def paired(new: Sequence[Row], old: Sequence[Row], key: str) -> Interval:
    """The geometric mean of the ratios of `key`, paired by seed, with its interval."""
    if [int(row["seed"]) for row in new] != [int(row["seed"]) for row in old]:
        raise StudyError("the two have other seeds")
    logs = [math.log(float(a[key]) / float(b[key])) for a, b in zip(new, old, strict=True)]
    found = interval(logs)
    return Interval(*(math.exp(each) for each in (found.mean, found.low, found.high)))


def _name(loss: float, ratio: Interval | None, target: float) -> str:
    if loss > target:
        return MISSED
    if ratio is None:
        return FIRST
    return RECORD if ratio.high < 1 else SLOWER if ratio.low > 1 else UNSURE
