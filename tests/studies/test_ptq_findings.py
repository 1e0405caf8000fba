"""What a sweep says: findings on both sides of their bounds, medians of speeds and means, its page."""

import pytest

from cadenza.studies import ptq_findings, report
from cadenza.studies.ptq_findings import findings, summary

HOLDS = {True: "holds here.", False: "doesn't hold here."}


def row(form, heat=0.5, kl=1.0, speed=10.0, **more):
    return {
        **{"model": "folder/tiny", "format": form, "temperature": heat, "top_k": 50.0},
        **{"max_new_tokens": 6.0, "kl": kl, "decode_tokens_per_second": speed, **more},
    }


def said(rows, start):
    (line,) = (line for line in findings(rows) if line.startswith(f"- {start}"))
    return line


@pytest.mark.parametrize(
    ("ratios", "holds"),
    [
        ([1.0, 1.0], True),
        ([1.09, 0.91], True),
        ([1.1, 1.0], False),
        ([1.0, 0.9], False),
        ([1.2, 1.0], False),
        ([1.0, 0.8], False),
        ([1.3, 0.7], False),
    ],
)
def test_nf4_equals_fp4_within_a_tenth_at_each_temperature(ratios, holds):
    heats = (0.2, 1.0)
    rows = [row("nf4", heat, 1.0, 4.0) for heat in heats]
    rows += [row("fp4", heat, ratio, 10.0) for heat, ratio in zip(heats, ratios, strict=True)]
    assert said(rows, "nf4 = fp4") == (
        f"- nf4 = fp4: {HOLDS[holds]} fp4's KL is "
        f"{min(ratios):.2f} to {max(ratios):.2f} times nf4's; it decodes 2.50 times as fast."
    )


def test_ratios_are_of_fp4_to_nf4():
    rows = [row("nf4", kl=2.0, speed=8.0), row("fp4", kl=1.0, speed=2.0)]
    assert "fp4's KL is 0.50 to 0.50 times nf4's; it decodes 0.25 times as fast." in said(rows, "nf4 = fp4")


@pytest.mark.parametrize(
    ("heats", "worst", "holds"),
    [
        ((0.5, 1.0), 0.5, True),
        ((0.5, 1.0), 1.0, False),
        ((0.8, 1.0), 0.8, True),
        ((0.49, 0.6), 0.49, False),
        ((0.6, 0.81), 0.81, False),
        ((0.2, 0.6, 1.0), 0.6, True),
    ],
)
def test_four_bit_models_may_be_most_sensitive_at_temperatures_from_a_half_to_four_fifths(
    heats, worst, holds
):
    rows = [row("nf4", heat, 3.0 if heat == worst else 1.0) for heat in heats]
    line = said(rows, "4-bit models are the more sensitive at temperatures 0.5 to 0.8: ")
    assert ("doesn't hold here." not in line) == holds
    shown = ", ".join(f"{3 if heat == worst else 1} at {heat:g}" for heat in heats)
    assert line.endswith(f" their mean KL is {shown}.")


def test_that_is_a_mean_over_the_four_bit_formats():
    """int8 would turn it round, and unquantized ones are no error at all."""
    kls = {"nf4": (4.0, 2.0), "nf4-dq": (4.0, 2.0), "fp4": (1.0, 4.0), "fp4-dq": (2.0, 1.0)}
    kls |= {"int8": (0.0, 90.0), "none": (0.0, 90.0)}
    rows = [
        row(form, heat, kl) for form, pair in kls.items() for heat, kl in zip((0.6, 1.0), pair, strict=True)
    ]
    line = said(rows, "4-bit models")
    assert line.endswith("0.8: holds here. their mean KL is 2.75 at 0.6, 2.25 at 1.")


@pytest.mark.parametrize("heats", [(0.5, 0.8), (0.2, 1.0)])
def test_without_both_kinds_of_temperature_nothing_is_said_of_them(heats):
    assert findings([row("nf4", heat) for heat in heats]) == []


def test_without_what_is_compared_nothing_is_said():
    assert findings([row("int8", 0.5), row("int8", 1.0)]) == []
    assert findings([row("none", 0.5), row("none", 1.0)]) == []
    assert findings([row("fp4")]) == []


@pytest.mark.parametrize(
    ("speeds", "slowest", "fastest", "shown"),
    [
        ({"none": 8.0, "int8": 2.0, "nf4": 4.0}, True, True, "none 1.00, nf4 0.50, int8 0.25"),
        ({"none": 8.0, "int8": 4.0, "nf4": 2.0}, False, True, "none 1.00, int8 0.50, nf4 0.25"),
        ({"none": 4.0, "int8": 2.0, "nf4": 8.0}, True, False, "nf4 2.00, none 1.00, int8 0.50"),
        ({"none": 4.0, "int8": 3.0}, True, True, "none 1.00, int8 0.75"),
        ({"none": 4.0, "int8": 16.0, "nf4": 2.0}, False, False, "int8 4.00, none 1.00, nf4 0.50"),
    ],
)
def test_speeds_are_compared_with_the_unquantized_one(speeds, slowest, fastest, shown):
    rows = [row(form, speed=speed) for form, speed in speeds.items()]
    assert findings(rows) == [
        f"- int8 is the slowest: {HOLDS[slowest]} decode against unquantized: {shown}.",
        f"- unquantized is the fastest: {HOLDS[fastest]}",
    ]


def test_speeds_are_medians_and_errors_means():
    cells = ((1.0, 3.0), (2.0, 100.0), (6.0, 5.0))
    rows = [row("nf4", kl=kl, speed=speed, weight_bytes=8.0) for kl, speed in cells]
    rows += [row("fp4", 1.0, kl=7.0, speed=2.0, weight_bytes=9.0)]
    assert summary(rows, ("format",)) == [
        {"format": "nf4", "kl": 3.0, "decode_tokens_per_second": 5.0, "weight_bytes": 8.0},
        {"format": "fp4", "kl": 7.0, "decode_tokens_per_second": 2.0, "weight_bytes": 9.0},
    ]
    by_heat = summary([*rows, row("nf4", 1.0, kl=9.0, weight_bytes=8.0)], ("format", "temperature"))
    assert [(r["format"], r["temperature"], r["kl"]) for r in by_heat] == [
        *(("nf4", 0.5, 3.0), ("fp4", 1.0, 7.0), ("nf4", 1.0, 9.0))
    ]


def test_numbers_of_a_csv():
    read = {"model": "1", "format": "2", "settings": "3", "kl": "0.5", "top_k": "50"}
    assert ptq_findings.as_numbers([read]) == [{**read, "kl": 0.5, "top_k": 50.0}]


@pytest.fixture
def written(monkeypatch):
    found = []
    monkeypatch.setattr(report, "write", lambda *given, **more: found.append((*given, more)))
    return found


def test_each_model_has_a_section_and_plots(written, tmp_path, capsys):
    first = [
        row(form, heat, kl, 10.0 * kl + 1, generated_nll=heat, weight_bytes=1_260_000.0, settings="a")
        for form, kl in (("none", 0.0), ("nf4", 0.5), ("fp4", 0.25))
        for heat in (0.5, 1.0)
    ]
    second = [{**each, "model": "hub/other/"} for each in first[:2]]
    ptq_findings.write(tmp_path, [*first, *second])
    names = [(str(folder), name) for folder, name, *_ in written]
    assert names == [(str(tmp_path), f"ptq_{name}") for name in ("error_tiny", "speed_tiny", "speed_other")]
    _, _, rows, *axes = written[0]
    assert axes == ["temperature", "kl", "format", {"log": "y"}]
    assert [(r["format"], r["temperature"], r["kl"]) for r in rows] == [
        *(("nf4", 0.5, 0.5), ("nf4", 1.0, 0.5), ("fp4", 0.5, 0.25), ("fp4", 1.0, 0.25))
    ]
    _, _, rows, *axes = written[1]
    assert axes == ["weight_MB", "decode_tokens_per_second", "format", {"log": ""}]
    assert [(r["format"], r["weight_MB"], r["decode_tokens_per_second"]) for r in rows] == [
        *(("none", 1.3, 1.0), ("nf4", 1.3, 6.0), ("fp4", 1.3, 3.5))
    ]
    page = (tmp_path / "ptq_sweep.md").read_text()
    assert page == PAGE + "\n".join(findings(first)) + OTHER
    assert capsys.readouterr().out == f"written: {tmp_path / 'ptq_sweep'}.csv, .md\n"


TABLE = """\
| format | kl | decode_tokens_per_second | generated_nll | weight_bytes |
| --- | --- | --- | --- | --- |
"""
PAGE = f"""\
# Post-training quantization

## tiny

{TABLE}| none | 0 | 1 | 0.75 | 1.26e+06 |
| nf4 | 0.5 | 6 | 0.75 | 1.26e+06 |
| fp4 | 0.25 | 3.5 | 0.75 | 1.26e+06 |

| kl by temperature | 0.5 | 1.0 |
| --- | --- | --- |
| none | 0 | 0 |
| nf4 | 0.5 | 0.5 |
| fp4 | 0.25 | 0.25 |

| generated_nll by temperature | 0.5 | 1.0 |
| --- | --- | --- |
| none | 0.5 | 1 |
| nf4 | 0.5 | 1 |
| fp4 | 0.5 | 1 |

"""
OTHER = f"""

## other

{TABLE}| none | 0 | 1 | 0.75 | 1.26e+06 |

| kl by temperature | 0.5 | 1.0 |
| --- | --- | --- |
| none | 0 | 0 |

| generated_nll by temperature | 0.5 | 1.0 |
| --- | --- | --- |
| none | 0.5 | 1 |


"""
