"""Findings from made-up rows: each answer comes from the data, and each can be yes, no or neither."""

import json
import math

import pytest

pytest.importorskip("scipy")

from cadenza.studies.intervals import CANT_TELL, Interval
from cadenza.studies.ptq_sweep import estimates, findings, sensitivity
from cadenza.studies.ptq_sweep.measures.generated import MEASURES
from cadenza.studies.ptq_sweep.measures.prediction import OF_WINDOWS
from cadenza.studies.ptq_sweep.results import Results
from cadenza.studies.verdicts import NO, YES, above, all_of, any_of, opposite

BITS = {"none": 32, "nf4": 4.5, "fp4": 4.5, "nf4-dq": 4.13, "int8": 8.03}
NOISE = [0.01, -0.02, 0.03, -0.015, 0.0, 0.02, -0.01, -0.015]  # of windows and prompts; its sum is 0


def prediction(form, kl=0.1, model="m", noise=1.0, nll=2.0):
    each = {name: [0.0] * 8 for name in OF_WINDOWS}
    each["kl"] = [kl * math.exp(noise * n * (1 if form == "nf4" else -1)) for n in NOISE]
    each["nll"] = [nll + n for n in NOISE]
    lists = {name: json.dumps(values) for name, values in each.items()}
    about = {"model": model, "format": form, "text": "t", "bits": str(BITS[form]), "kl_percentiles": "{}"}
    return {**about, **lists}


def generation(form, nll, temperature=1.0, k=50, new=8, seed=0, model="m", noise=0.0):
    """`nll` of all prompts, with noise that isn't paired."""
    each = {name: [0.0] * 8 for name in MEASURES}
    each["nll"] = [nll + noise * n * (-1) ** (i // 2) for i, n in enumerate(NOISE)]
    setting = {"temperature": temperature, "top_k": k, "max_new_tokens": new, "seed": seed}
    row = {"model": model, "format": form, "text": "t", **setting}
    return {**{key: str(value) for key, value in row.items()}, **{k: json.dumps(v) for k, v in each.items()}}


def speed(form, ratio, spread=0.0, batch=1, model="m"):
    rounds = [ratio * (1 + spread * n) for n in NOISE]
    names = dict.fromkeys(("prefill", "decode"), json.dumps(rounds))
    plain = dict.fromkeys(("plain_prefill", "plain_decode"), json.dumps([1.0] * 8))
    return {"model": model, "format": form, "batch": str(batch), **names, **plain}


def results(predictions=(), generations=(), speeds=(), families=None):
    return Results(families or {"m": "llama"}, list(predictions), list(generations), list(speeds))


@pytest.mark.parametrize(
    ("kl", "noise", "nll", "generated", "verdict"),
    [
        (0.1, 0, 2.0, 1.0, "yes"),
        (0.15, 0, 2.0, 1.0, "no"),  # more KL than the margin
        (0.1, 0, 2.1, 1.0, "no"),  # more perplexity
        (0.1, 0, 2.0, 1.2, "no"),  # less likely text
        (0.11, 3, 2.0, 1.0, CANT_TELL),  # about the margin
    ],
)
def test_whether_formats_are_equal(kl, noise, nll, generated, verdict):
    rows = [prediction("nf4", 0.1, noise=noise), prediction("fp4", kl, noise=noise, nll=nll)]
    found = results(rows, [generation("nf4", 1.0), generation("fp4", generated)])
    line = findings.equal(found, ["m"], "nf4", "fp4")
    assert line.verdict == verdict, line
    assert f"KL {kl / 0.1:.3f}" in line.numbers, "fp4 against nf4"


@pytest.mark.parametrize(
    ("hot", "noise", "verdict"),
    [(2.0, 0, "no"), (2.6, 0, "yes"), (1.5, 0, "no"), (2.02, 3, CANT_TELL)],
)
def test_whether_4_bit_models_answer_to_temperature_more(hot, noise, verdict):
    """The unquantized one goes from 1 to 2 nats."""
    rows = [generation("none", 1.0, 0.5), generation("none", 2.0, 0.8), generation("nf4", 1.1, 0.5)]
    rows.append(generation("nf4", hot + 0.1 * (hot != 2.0), 0.8, noise=noise))
    found = results([prediction("none"), prediction("nf4")], rows)
    (line,) = sensitivity.by_temperature(found, ["m"])
    assert line.verdict == verdict, line
    assert line.question.endswith("from 0.5 to 0.8")


@pytest.mark.parametrize(("inside", "outside", "verdict"), [(0.9, 0.1, "yes"), (0.1, 0.9, "no")])
def test_whether_that_is_so_in_the_paper_s_band_above_all(inside, outside, verdict):
    rows = [generation("none", 1.0, t) for t in (0.5, 0.8, 1.1)]
    rows += [
        generation("nf4", nll, t) for nll, t in ((1, 0.5), (1 + inside, 0.8), (1 + inside + outside, 1.1))
    ]
    found = results([prediction("none"), prediction("nf4")], rows)
    lines = list(sensitivity.by_temperature(found, ["m"]))
    assert lines[-1].question == "They are so from 0.5 to 0.8 more than elsewhere"
    assert lines[-1].verdict == verdict


@pytest.mark.parametrize(
    ("nf4", "fp4", "noise", "verdict"),
    [(2.1, 2.5, 0, "nf4"), (1.3, 2.1, 0, "fp4"), (2.1, 1.5, 0, "nf4"), (2.1, 2.12, 3, CANT_TELL)],
)
def test_which_is_more_resilient_is_the_nearer_to_the_unquantized_model(nf4, fp4, noise, verdict):
    rows = [generation(form, 1.0, 0.2) for form in ("none", "nf4", "fp4")]
    rows += [generation("none", 2.0, 1.0), generation("nf4", nf4, 1.0, noise=noise)]
    rows.append(generation("fp4", fp4, 1.0, noise=-noise))
    found = results([prediction(form) for form in ("none", "nf4", "fp4")], rows)
    (line,) = sensitivity.resilience(found, ["m"], "nf4", "fp4")
    assert line.verdict == verdict, line


@pytest.mark.parametrize(
    ("many", "noise", "verdict"), [(1.5, 0.1, "yes"), (1.0, 0, "no"), (1.04, 3, CANT_TELL)]
)
def test_what_top_k_changes(many, noise, verdict):
    rows = [generation(form, 1.0, k=50) for form in ("none", "nf4")]
    rows += [generation("none", 1.0, k=200), generation("nf4", many, k=200, noise=noise)]
    found = results([prediction("none"), prediction("nf4")], rows)
    (line,) = sensitivity.along(found, ["m"], "top_k")
    assert line.verdict == verdict, line
    assert ("nf4's nll +0.5" in line.numbers) == (verdict == "yes")
    assert list(sensitivity.along(found, ["m"], "max_new_tokens")) == [], "one length alone"


@pytest.mark.parametrize(
    ("ratio", "spread", "slower", "fastest"),
    [(0.5, 1, "yes", "yes"), (1.5, 1, "no", "no"), (1.0, 9, CANT_TELL, CANT_TELL)],
)
def test_speeds(ratio, spread, slower, fastest):
    first, second = findings.speeds(results(speeds=[speed("int8", ratio, spread)]), ["m"])
    assert (first.verdict, second.verdict) == (slower, fastest)


@pytest.mark.parametrize(("fp4", "noise", "best"), [(0.2, 1, "nf4"), (0.05, 1, "fp4"), (0.1, 1, CANT_TELL)])
def test_the_best_four_bit_format(fp4, noise, best):
    """int8 is of another size, and the unquantized model no format."""
    rows = [prediction("none", 1e-9), prediction("int8", 1e-6), prediction("nf4"), prediction("fp4", fp4)]
    (line,) = findings.best_four_bit(results(rows), ["m"])
    assert line.verdict == best, line
    smaller = [*rows, prediction("nf4-dq", 0.4)]
    assert [line.verdict for line in findings.best_four_bit(results(smaller), ["m"])] == [best], (
        "at most 4.28 bits there is one alone"
    )


def test_the_front():
    rows = [
        prediction("nf4", 0.1),
        prediction("fp4", 0.2),
        prediction("nf4-dq", 0.1),
        prediction("int8", 0.01),
    ]
    beaten = findings.front(results(rows), ["m"])
    assert beaten == {"nf4": "", "fp4": "nf4-dq", "nf4-dq": "", "int8": ""}


def test_findings_are_of_each_family_and_of_all():
    families = {"a": "llama", "b": "falcon", "c": "llama"}
    rows = [prediction(form, model=m) for m in families for form in ("nf4", "fp4")]
    text = [generation(form, 1.0, model=m) for m in families for form in ("none", "nf4", "fp4")]
    found = findings.findings(results(rows, text, families=families))
    assert [scope.name for scope, _ in found] == ["llama (a, c)", "falcon (b)", "all models"]
    assert all(lines[0].question == "nf4 = fp4" for _, lines in found)
    one = findings.findings(results(rows, text, families={"a": "llama"}))
    assert [scope.models for scope, _ in one] == [["a"]]


def test_a_prompt_counts_once_with_the_mean_over_its_seeds():
    rows = [generation("nf4", nll, seed=seed) for seed, nll in ((0, 1.0), (1, 3.0))]
    found = results(generations=rows).generated(["m"], "nf4", "nll")
    assert (len(found), set(found.values())) == (8, {2.0})


def test_one_value_has_no_interval_and_tells_nothing():
    alone = estimates.mean({("m", "t", 0): 5.0})
    assert above(alone) == estimates.within(alone, 0, 9) == CANT_TELL
    assert estimates.shown(alone) == "+5"
    assert estimates.chance({("m", "t", 0): 5.0}) == 1
    assert math.isnan(estimates.mean({}).mean)
    assert math.isnan(estimates.ratio({("m", "t", 0): 0.0}, {("m", "t", 0): 1.0}).mean)


def test_the_interval_of_a_median_is_that_of_the_sign_test():
    """Of 9 values the 2nd and the 8th: 2 * (1 + 9) / 512 = 3.9 % lie outside. Of 5 none will do: 6.3 %."""
    assert estimates.middle([5, 1, 9, 3, 7, 2, 8, 4, 6]) == Interval(5, 2, 8)
    assert estimates.middle([1, 2, 3, 4, 5, 6]) == Interval(3.5, 1, 6)
    assert math.isnan(estimates.middle([1, 2, 3, 4, 5]).low)


def test_verdicts():
    assert [above(Interval(1, low, high), 1) for low, high in ((1.1, 2), (0, 0.9), (0, 2))] == [
        *(YES, NO, CANT_TELL),
    ]
    assert [opposite(each) for each in (YES, NO, CANT_TELL)] == [NO, YES, CANT_TELL]
    assert [all_of(each) for each in ([], [YES], [YES, CANT_TELL], [YES, CANT_TELL, NO])] == [
        *(YES, YES, CANT_TELL, NO),
    ]
    assert [any_of(each) for each in ([], [NO], [NO, CANT_TELL], [NO, CANT_TELL, YES])] == [
        *(NO, NO, CANT_TELL, YES),
    ]
