"""What the ablation found, in sentences that are made of its numbers."""

from cadenza.studies.ablation.results import Comparison, Results
from cadenza.studies.intervals import Interval, interval

WORDS = {"steps": "at equal steps", "time": "at equal time"}


def loss(found: Interval | None) -> str:
    """A difference of losses."""
    return "" if found is None else found.signed(".3f")


def points(found: Interval | None) -> str:
    """A difference of accuracies, in points of a percent."""
    return "" if found is None else found.signed(".1f", 100)


def ratio(found: Interval) -> str:
    """A ratio of times."""
    return f"{found.mean:.2f} ({found.low:.2f} to {found.high:.2f})"


def findings(results: Results, pairs: list[Comparison], reach: list[str]) -> list[str]:
    """Markdown lists: each comparison, then the time to each loss in `reach`."""
    lines = [_compared(results, pair) for pair in pairs]
    for target in reach:
        others = [name for name in results.steps if name != target]
        lines += [_reaching(results, name, target) for name in others]
    return lines


def _compared(results: Results, pair: Comparison) -> str:
    said = [f"a step takes {ratio(results.speeds.ratio(pair.first, pair.second))} of the time"]
    for budget, words in WORDS.items():
        losses, accuracies = (results.difference(pair, budget, key) for key in ("loss", "accuracy"))
        more = "" if accuracies is None else f", accuracy in points {points(accuracies)}"
        said.append(f"{words} loss {loss(losses)}{more}")
    return f"- **{pair.label}** ({pair.pair}): {'; '.join(said)}."


def _reaching(results: Results, name: str, target: str) -> str:
    start = f"- {name} reaches the final loss of {target}"
    shares = results.shares(name, target)
    found = [share for share in shares if share is not None]
    if len(found) < len(shares):
        return f"{start} with {len(found)} of {len(shares)} seeds."
    of = f"of the time of {results.baseline}"
    return f"{start} in {share(interval(found))} {of}."


def share(found: Interval) -> str:
    """A share of a time, with its interval if there is one."""
    known = found.low == found.low  # not NaN
    return f"{found.mean:.2f} ({found.low:.2f} to {found.high:.2f})" if known else f"{found.mean:.2f}"
