"""How generated text changes with temperature, top_k and length, compared with the unquantized model's.

A change is the measure at the higher setting minus that at the lower one, for the same prompts and seeds. A
format's excess is its change minus the unquantized model's: a difference of differences, paired by prompt.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from cadenza.studies.intervals import CANT_TELL, Interval
from cadenza.studies.ptq_sweep import estimates
from cadenza.studies.ptq_sweep.estimates import Finding
from cadenza.studies.ptq_sweep.measures.generated import MEASURES
from cadenza.studies.ptq_sweep.results import Results, Values, mean_of, minus
from cadenza.studies.ptq_sweep.settings import PLAIN
from cadenza.studies.verdicts import NO, YES, above

BAND = 0.5, 0.8  # the temperatures that the paper names
AXES = ("temperature", "top_k", "max_new_tokens")
LEVEL = 0.05
MARGIN = 0.05  # nats a token, shares of n-grams and texts, and of the longest length
FAMILIES = ("nf4", "fp4"), ("nf4-dq", "fp4-dq")


def sensitivity(results: Results, models: Sequence[str]) -> Iterator[Finding]:
    """All findings about settings."""
    for one, other in FAMILIES:
        if {one, other} <= set(results.formats(models)):
            yield from resilience(results, models, one, other)
    yield from by_temperature(results, models)
    for name in AXES[1:]:
        yield from along(results, models, name)


def change(
    results: Results, models: Sequence[str], form: str, measure: str, name: str, low: float, high: float
) -> Values:
    """Of each prompt: the measure where the setting `name` is `high`, minus that where it is `low`."""
    ends = (results.generated(models, form, measure, **{name: value}) for value in (high, low))
    return minus(*ends)


def excess(results: Results, models: Sequence[str], form: str, measure: str, *setting) -> Values:
    """The format's change minus the unquantized model's, of each prompt; `setting` as in `change`."""
    return minus(*(change(results, models, each, measure, *setting) for each in (form, PLAIN)))


def resilience(results: Results, models: Sequence[str], one: str, other: str) -> Iterator[Finding]:
    """Which of two formats follows the unquantized model's answer to temperature more closely.

    The distance of a prompt is the absolute excess of nats a token between the lowest and the highest
    temperature; what sampling adds to it is alike for both formats.
    """
    values = results.settings("temperature")
    if len(values) < 2:
        return
    ends = "temperature", values[0], values[-1]
    distances = [
        {u: abs(v) for u, v in excess(results, models, f, "nll", *ends).items()} for f in (one, other)
    ]
    found = estimates.mean(minus(*distances))
    verdict = {YES: other, NO: one}.get(above(found), CANT_TELL)
    numbers = ", ".join(
        f"{form} departs by {estimates.shown(estimates.mean(each), '.3f')}"
        for form, each in zip((one, other), distances, strict=True)
    )
    question = f"More resilient to temperature ({values[0]:g} to {values[-1]:g}), {one} or {other}"
    yield Finding(
        question, verdict, f"Nats a generated token: {numbers}; difference {estimates.shown(found)}."
    )


def by_temperature(results: Results, models: Sequence[str]) -> Iterator[Finding]:
    """Whether 4-bit models answer to temperature more than the unquantized one: each step, and the band."""
    values, forms = results.settings("temperature"), results.four_bit(models)
    if len(values) < 2 or not forms:
        return
    slopes = {step: _slope(results, models, forms, *step) for step in pairwise(values)}
    for (low, high), slope in slopes.items():
        found = _scaled(estimates.mean(slope), high - low)
        question = f"4-bit models are more sensitive than unquantized ones from {low:g} to {high:g}"
        yield Finding(question, above(found), f"Excess nats a token {estimates.shown(found)}.")
    inside = [slope for (low, high), slope in slopes.items() if BAND[0] <= low and high <= BAND[1]]
    outside = [slope for (low, high), slope in slopes.items() if high <= BAND[0] or low >= BAND[1]]
    if inside and outside:
        found = estimates.mean(minus(mean_of(inside), mean_of(outside)))
        question = f"They are so from {BAND[0]} to {BAND[1]} more than elsewhere"
        numbers = (
            f"Excess nats a token and unit of temperature, inside minus outside: {estimates.shown(found)}."
        )
        yield Finding(question, above(found), numbers)


def _slope(results: Results, models: Sequence[str], forms: Sequence[str], low: float, high: float) -> Values:
    """The mean excess of 4-bit formats for a unit of temperature, of each prompt."""
    each = [excess(results, models, form, "nll", "temperature", low, high) for form in forms]
    return {unit: value / (high - low) for unit, value in mean_of(each).items()}


def _scaled(found: Interval, factor: float) -> Interval:
    return Interval(found.mean * factor, found.low * factor, found.high * factor)


def along(results: Results, models: Sequence[str], name: str) -> Iterator[Finding]:
    """Whether a higher `name` changes quantized models otherwise than the unquantized one, by any measure.

    Yes: at least one excess would come by chance in less than 5 % of all cases, after Bonferroni's correction
    for their number. No: all excesses lie within `MARGIN` with their intervals.
    """
    values = results.settings(name)
    forms = results.formats(models)
    if len(values) < 2 or not forms:
        return
    ends = name, values[0], values[-1]
    found = {
        f"{form}'s {measure}": (measure, excess(results, models, form, measure, *ends))
        for form in forms
        for measure in MEASURES
    }
    told = [who for who, (_, each) in found.items() if estimates.chance(each) < LEVEL / len(found)]
    equal = [_negligible(results, measure, each) for measure, each in found.values()]
    verdict = YES if told else NO if set(equal) == {NO} else CANT_TELL
    plain = [
        f"{measure} {estimates.shown(estimates.mean(change(results, models, PLAIN, measure, *ends)))}"
        for measure in MEASURES
    ]
    listed = [f"{who} {estimates.shown(estimates.mean(found[who][1]))}" for who in told]
    question = f"Quantized models answer otherwise to {name} ({values[0]:g} to {values[-1]:g})"
    numbers = f"Unquantized: {', '.join(plain)}. Excesses that tell: {len(told)} of {len(found)}"
    yield Finding(question, verdict, f"{numbers}{': ' if listed else ''}{', '.join(listed)}.")


def _negligible(results: Results, measure: str, found: Values) -> str:
    """NO, which answers the question, if the excess lies within its margin for sure."""
    margin = MARGIN * (results.settings("max_new_tokens")[-1] if measure == "length" else 1)
    return NO if estimates.within(estimates.mean(found), -margin, margin) == YES else CANT_TELL
