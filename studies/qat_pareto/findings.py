"""Which findings of arXiv 2105.03536 hold on the points of the QAT study: yes, no, or can't tell.

Two kinds are compared by the mean difference over their shared seeds, and its 95 % interval (Student's t).
Each interval holds by itself: nothing corrects for how many there are.
"""

from typing import TypeGuard

from cadenza.studies.intervals import CANT_TELL, Interval
from cadenza.studies.qat_pareto.points import Kind
from cadenza.studies.qat_pareto.results import Results
from cadenza.studies.qat_pareto.settings import PLAIN
from cadenza.studies.verdicts import NO, YES, above, all_of, any_of, opposite

POINTS = 100  # of accuracy
EQUAL = 1e-12  # accuracies of seeds that differ by less are the same


def on_front(results: Results, kind: Kind, cost: str) -> str:
    """Whether each trained network that costs no more is less accurate.

    `yes` if all of the intervals say so, `no` if one says the opposite.
    """
    return all_of(sign(results.difference(kind, other)) for other in _no_dearer(results, kind, cost))


def mostly_four(results: Results, cost: str) -> str:
    """Whether more of the front has 4-bit weights than not, whatever the networks that can't be told are."""
    verdicts = {kind: on_front(results, kind, cost) for kind in results.trained}
    four = [verdict for kind, verdict in verdicts.items() if kind.bits.startswith("w4")]
    others = [verdict for kind, verdict in verdicts.items() if not kind.bits.startswith("w4")]
    if four.count(YES) > others.count(YES) + others.count(CANT_TELL):
        return YES
    return NO if four.count(YES) + four.count(CANT_TELL) <= others.count(YES) else CANT_TELL


def dominated(results: Results, plain: Kind) -> tuple[str, Kind | None]:
    """Whether a quantized network that costs no more is more accurate, and the likeliest such network."""
    rivals = [other for other in _no_dearer(results, plain, "linear") if other.bits != PLAIN]
    found = {other: gain for other in rivals if (gain := results.difference(other, plain))}
    if not found:
        return (CANT_TELL if rivals else NO), None
    best = max(found, key=lambda other: (sign(found[other]) == YES, found[other].mean))
    return any_of(sign(gain) for gain in found.values()), best


def sign(found: Interval | None) -> str:
    """Whether a difference is above zero."""
    return above(found) if _varies(found) else CANT_TELL


def within(found: Interval | None, margin: float) -> str:
    """Whether a difference is above `-margin`, in points."""
    return above(found, -margin / POINTS) if _varies(found) else CANT_TELL


def _varies(found: Interval | None) -> TypeGuard[Interval]:
    """Whether seeds differ: those that agree exactly, as networks that learned nothing, tell of no chance."""
    return found is not None and found.high - found.low > EQUAL


def points(found: Interval | None) -> str:
    """A difference of accuracies in points, with its interval."""
    return "" if found is None else found.signed(".2f", POINTS)


def findings(results: Results, margin: float) -> list[str]:
    """The paper's findings, each with a verdict and the numbers for or against it; Markdown."""
    lines = [_front_line(results, cost) for cost in ("linear", "quadratic")]
    lines += [*_dominated_lines(results), *_gain_lines(results, margin), *_gap_lines(results)]
    return [*lines, *_after_lines(results)]


def label(kind: Kind) -> str:
    """Such as `w4a4 in resnet10 x 0.25`."""
    bits = "full precision" if kind.bits == PLAIN else kind.shown_bits
    return f"{bits} in {kind.network}"


def pairs_of(results: Results, bits: str) -> list[tuple[Kind, Kind]]:
    """Each trained network of these bits, with itself in full precision."""
    return [(kind, kind.full) for kind in results.trained if kind.bits == bits and kind.full in results.rows]


def quantized_bits(results: Results) -> list[str]:
    """The bits that networks were trained with."""
    return list(dict.fromkeys(kind.bits for kind in results.trained if kind.bits != PLAIN))


def _no_dearer(results: Results, kind: Kind, cost: str) -> list[Kind]:
    most = results.cost(kind, cost)
    return [other for other in results.trained if other != kind and results.cost(other, cost) <= most]


def _front_line(results: Results, cost: str) -> str:
    by_verdict: dict[str, list[str]] = {YES: [], CANT_TELL: []}
    for kind in sorted(results.trained, key=lambda each: results.cost(each, cost)):
        if (verdict := on_front(results, kind, cost)) in by_verdict:
            by_verdict[verdict].append(label(kind))
    sure = ", ".join(by_verdict[YES]) or "none for sure"
    open_ = f"; {CANT_TELL} of {', '.join(by_verdict[CANT_TELL])}" if by_verdict[CANT_TELL] else ""
    return (
        f"- The front against {cost} cost is mostly 4-bit: **{mostly_four(results, cost)}**. "
        f"On it: {sure}{open_}."
    )


def _dominated_lines(results: Results) -> list[str]:
    plain = [kind for kind in results.trained if kind.bits == PLAIN]
    found = {kind: dominated(results, kind) for kind in plain}
    shown = []
    for kind, (verdict, best) in found.items():
        by = f", {label(best)} has {points(results.difference(best, kind))}" if best else ""
        shown.append(f"{kind.network}: {verdict}{by}")
    if not plain or not quantized_bits(results):
        return []
    start = "- Every network in full precision has a quantized one that costs no more and is more accurate: "
    verdict = all_of(verdict for verdict, _ in found.values())
    return [f"{start}**{verdict}**. Points of accuracy, {'; '.join(shown)}."]


def _gain_lines(results: Results, margin: float) -> list[str]:
    """Each choice of bits against full precision in the same network."""
    lines = []
    for bits in quantized_bits(results):
        if pairs := pairs_of(results, bits):
            gains = [results.difference(*pair) for pair in pairs]
            verdict = all_of(within(gain, margin) for gain in gains)
            shown = "; ".join(
                f"{kind.network}: {points(gain)}" for (kind, _), gain in zip(pairs, gains, strict=True)
            )
            lines.append(
                f"- {bits} is within {margin:g} points of full precision in the same network: **{verdict}**. "
                f"Points of accuracy, {shown}."
            )
    return lines


def _gap_lines(results: Results) -> list[str]:
    """Whether the generalization gap of images shrinks, over the networks."""
    lines = []
    for bits in quantized_bits(results):
        change = results.mean_difference(pairs_of(results, bits), "gap")
        if change is not None:
            smaller = opposite(sign(change))
            start = f"- The generalization gap in {bits} is smaller than in full precision: **{smaller}**"
            lines.append(f"{start}. Points, on average over the networks: {points(change)}.")
    return lines


def _after_lines(results: Results) -> list[str]:
    """Networks quantized after training, against those trained with the same bits, or in full precision."""
    lines = []
    after = [kind for kind in results.kinds if not kind.trained]
    for bits in dict.fromkeys(kind.bits for kind in after):
        shown = []
        for kind in (each for each in after if each.bits == bits):
            trained = kind._replace(trained=True)
            other, words = (trained, "trained") if trained in results.rows else (kind.full, "full precision")
            shown.append(f"{kind.network}: {points(results.difference(kind, other))} against {words}")
        lines.append(f"- {bits} after training, points of accuracy. {'; '.join(shown)}.")
    return lines
