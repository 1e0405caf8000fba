"""What the rows answer of the questions of arXiv 2309.05210, for each family of models and for all.

No answer is fixed before the data: each is yes, no, or "can't tell", by a 95 % interval. Intervals are over
windows or prompts of the models at hand, so that they say nothing of models that weren't measured. A prompt
counts once, with the mean over its seeds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cadenza.studies.intervals import CANT_TELL, Interval
from cadenza.studies.ptq_sweep import estimates
from cadenza.studies.ptq_sweep.estimates import Finding
from cadenza.studies.ptq_sweep.results import Results, minus
from cadenza.studies.ptq_sweep.sensitivity import sensitivity
from cadenza.studies.verdicts import YES, above, all_of, opposite

PAIRS = ("nf4", "fp4"), ("nf4", "nf4-dq"), ("fp4", "fp4-dq")
MARGIN_KL = 1.1  # as a ratio; formats of one size differ by more where a difference is of use
MARGIN_PERPLEXITY = 1.01  # as a ratio
MARGIN_NLL = 0.05  # nats a token of generated text
SAME_BITS = 0.15  # of a weight: nf4 has 4.5, nvfp4 a bit more


@dataclass(frozen=True)
class Scope:
    """The models that a finding is about."""

    name: str
    models: list[str]


def scopes(results: Results) -> list[Scope]:
    """Each family, and all models where there is more than one family."""
    families: dict[str, list[str]] = {}
    for model, family in results.families.items():
        families.setdefault(family, []).append(model)
    found = [Scope(f"{family} ({', '.join(models)})", models) for family, models in families.items()]
    return found if len(found) < 2 else [*found, Scope("all models", results.models)]


def findings(results: Results) -> list[tuple[Scope, list[Finding]]]:
    """The findings of each scope."""
    return [(scope, [*_of(results, scope.models)]) for scope in scopes(results)]


def _of(results: Results, models: list[str]) -> Iterator[Finding]:
    for one, other in PAIRS:
        if {one, other} <= set(results.formats(models)):
            yield equal(results, models, one, other)
    yield from best_four_bit(results, models)
    yield from sensitivity(results, models)
    yield from speeds(results, models)


def equal(results: Results, models: Sequence[str], one: str, other: str) -> Finding:
    """Whether two formats are equal up to margins, in prediction and in what they generate."""
    kl = estimates.ratio(*(results.predicted(models, form, "kl") for form in (other, one)))
    nll = [results.predicted(models, form, "nll") for form in (other, one)]
    perplexity = estimates.exp(estimates.mean(minus(*nll)))
    text = [results.generated(models, form, "nll") for form in (other, one)]
    generated = estimates.mean(minus(*text))
    verdicts = [
        estimates.within(kl, 1 / MARGIN_KL, MARGIN_KL),
        estimates.within(perplexity, 1 / MARGIN_PERPLEXITY, MARGIN_PERPLEXITY),
        estimates.within(generated, -MARGIN_NLL, MARGIN_NLL),
    ]
    parts = [
        f"KL {estimates.shown(kl, '.3f')} times (margin {MARGIN_KL}: {verdicts[0]})",
        f"perplexity {estimates.shown(perplexity, '.4f')} times (margin {MARGIN_PERPLEXITY}: {verdicts[1]})",
        f"nats a generated token {estimates.shown(generated)} (margin {MARGIN_NLL}: {verdicts[2]})",
    ]
    return Finding(f"{one} = {other}", all_of(verdicts), f"{other} against {one}: {'; '.join(parts)}.")


def best_four_bit(results: Results, models: Sequence[str]) -> Iterator[Finding]:
    """For each size of 4-bit formats the one of least KL, compared with the next at no more bits.

    "At equal bits" is: at most `SAME_BITS` more than the smaller of two.
    """
    forms = sorted(results.four_bit(models), key=lambda form: results.bits(models[0], form))
    kl = {form: results.predicted(models, form, "kl") for form in forms}
    sizes = [results.bits(models[0], form) for form in forms]
    for size in sizes_apart(sizes):
        held = [f for f, bits in zip(forms, sizes, strict=True) if bits <= size + SAME_BITS]
        ranked = sorted(held, key=lambda form: estimates.mean(kl[form]).mean)
        if len(ranked) < 2:
            continue
        found = estimates.ratio(kl[ranked[1]], kl[ranked[0]])
        verdict = ranked[0] if above(found, 1) == YES else CANT_TELL
        numbers = f"{ranked[1]} has {estimates.shown(found, '.3f')} times the KL of {ranked[0]}"
        yield Finding(f"The best format of at most {size + SAME_BITS:.2f} bits", verdict, f"{numbers}.")


def sizes_apart(sizes: Sequence[float]) -> list[float]:
    """The smallest of `sizes`, and each that is more than `SAME_BITS` above the last one taken."""
    found: list[float] = []
    for size in sorted(sizes):
        if not found or size > found[-1] + SAME_BITS:
            found.append(size)
    return found


def speeds(results: Results, models: Sequence[str]) -> Iterator[Finding]:
    """For each model and batch size, whether a format is slower than the unquantized model in `decode`."""
    for model in models:
        rows = {(f, b): row for (m, f, b), row in results.speed.items() if m == model}
        for batch in sorted({batch for _, batch in rows}):
            slower = {}
            for form in [form for form, size in rows if size == batch]:
                found = speed_ratio(rows[form, batch], "decode")
                slower[form] = opposite(above(found, 1))
                yield Finding(
                    f"{form} decodes more slowly than unquantized, {model}, batch {batch}",
                    slower[form],
                    f"{estimates.shown(found, '.2f')} times its speed.",
                )
            verdict = all_of(list(slower.values()))
            numbers = f"Against {', '.join(slower)}."
            yield Finding(f"Unquantized decodes the fastest, {model}, batch {batch}", verdict, numbers)


def speed_ratio(row: dict, name: str) -> Interval:
    """The median over rounds of a format's speed over the unquantized model's."""
    pairs = zip(row[name], row[f"plain_{name}"], strict=True)
    return estimates.middle([ours / theirs for ours, theirs in pairs])


def front(results: Results, models: Sequence[str]) -> dict[str, str]:
    """Format -> the format of no more bits that has less KL for sure, or "" for one on the front."""
    forms = results.formats(models)
    kl = {form: results.predicted(models, form, "kl") for form in forms}
    size = {form: results.bits(models[0], form) for form in forms}
    beaten = {}
    for form in forms:
        smaller = [f for f in forms if f != form and size[f] <= size[form] + 1e-9]
        better = [f for f in smaller if above(estimates.ratio(kl[form], kl[f]), 1) == YES]
        beaten[form] = min(better, key=lambda f: estimates.mean(kl[f]).mean) if better else ""
    return beaten
