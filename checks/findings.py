"""What a check finds: numbers within their tolerance, or an error that says what was wrong and where."""

from dataclasses import dataclass, field


class CheckFailed(AssertionError):
    """A check found a fault. The message says what, where, how much, and what was allowed.

    Args:
        check: the name of the check, with the model's class.
        finding: the difference that is too large.
        hint: what would be right, if the check knows.
    """

    def __init__(self, check: str, finding: "Finding", hint: str = "") -> None:
        words = finding.words or f"is {finding.numbers}"
        super().__init__(f"{check}: {finding.what} {words} at {finding.where}{hint and f'. {hint}'}")
        self.finding = finding


class NotCheckable(ValueError):
    """A check can't be made on this model or trainer. The message says why, and what would be possible."""


@dataclass(frozen=True)
class Finding:
    """A largest difference, and what is allowed.

    Args:
        what: what was measured, as a noun.
        where: the place of the largest difference.
        difference: its absolute value.
        tolerance: the largest that passes; 0 where the numbers must be the same.
        words: how it differs, where that is no number.
    """

    what: str
    where: str
    difference: float
    tolerance: float
    words: str = ""

    @property
    def passes(self) -> bool:
        return self.difference <= self.tolerance  # False for NaN

    @property
    def numbers(self) -> str:
        return f"{self.difference:.2g} (allowed: {self.tolerance:.2g})"


@dataclass
class Passed:
    """The result of a check that found no fault; it prints in one line.

    Args:
        check: the name of the check, with the model's class.
        findings: for each kind of comparison the largest difference.
    """

    check: str
    findings: dict[str, Finding] = field(default_factory=dict)

    def note(self, finding: Finding, hint: str = "") -> None:
        """Keep the largest finding of each kind.

        Raises:
            CheckFailed: the finding is too large.
        """
        if not finding.passes:
            raise CheckFailed(self.check, finding, hint)
        kept = self.findings.setdefault(finding.what, finding)
        if finding.difference > kept.difference:
            self.findings[finding.what] = finding

    def __str__(self) -> str:
        found = (f"{finding.what} {finding.numbers}" for finding in self.findings.values())
        return f"{self.check}: passed; {', '.join(found)}"
