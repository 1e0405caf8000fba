"""What intervals answer: yes, no, or that they can't tell."""

from collections.abc import Iterable

from cadenza.studies.intervals import CANT_TELL, Interval

YES, NO = "yes", "no"


def above(found: Interval, bound: float = 0) -> str:
    """Whether a number is greater than `bound`."""
    if found.low > bound:
        return YES
    return NO if found.high < bound else CANT_TELL


def opposite(verdict: str) -> str:
    """The answer to the opposite question."""
    return {YES: NO, NO: YES}.get(verdict, CANT_TELL)


def all_of(verdicts: Iterable[str]) -> str:
    """No if one is, yes if all are: also where there is none."""
    found = set(verdicts)
    return NO if NO in found else CANT_TELL if CANT_TELL in found else YES


def any_of(verdicts: Iterable[str]) -> str:
    """Yes if one is, no if all are: also where there is none."""
    return opposite(all_of(map(opposite, verdicts)))
