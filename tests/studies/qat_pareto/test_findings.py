"""What is found: yes, no and can't tell, from rows that are made up."""

import math

import pytest
from drawn import LOOK, drawn, lines, look, scales  # noqa: F401

from cadenza.studies.intervals import Interval
from cadenza.studies.qat_pareto import findings, page, plot
from cadenza.studies.qat_pareto.points import Kind, Point
from cadenza.studies.qat_pareto.results import Results
from cadenza.studies.qat_pareto.settings import Pareto

COSTS = {"none": 16, "w8a8": 8, "w4a4": 4, "w2a2": 4}
T = 4.302652729911275  # of Student's distribution: 97.5 %, two degrees of freedom


def rows(*given, scatter=0.001):
    """Three seeds of each (width, bits, mean accuracy, ...), which scatter by so much around the mean.

    Costs go with the square of the width; the seeds' differences between two of a scatter are constant.
    """
    found = []
    for width, bits, mean, *more in given:
        own = {
            "variant": "base",
            "trained": True,
            "scatter": scatter,
            "gap": 0.01,
            **(more[0] if more else {}),
        }
        for seed, side in ((17, -1), (18, 0), (19, 1)):
            accuracy = mean + side * own["scatter"] * (2 if bits == "w4a4" else 1)
            cost = COSTS[bits] * width**2
            found.append(
                {
                    **{"model_type": "resnet10", "width": str(width), "bits": bits, "seed": str(seed)},
                    **{"variant": own["variant"], "trained": str(own["trained"]), "accuracy": str(accuracy)},
                    **{"train_accuracy": str(accuracy + own["gap"] + side * 1e-4), "loss": "1.0"},
                    **{"linear": cost, "quadratic": cost, "linear_ratio": COSTS[bits] / 16},
                    **{"memory_bits": 1_234_567.0, "seconds": "60", "versions": "torch 2.7.0, cpu, fp32"},
                }
            )
    return found


def results(*given, **more):
    return Results(rows(*given, **more))


def four(width=1.0):
    return Kind("resnet10", width, "w4a4")


def plain(width=1.0):
    return Kind("resnet10", width, "none")


def test_differences_are_paired_by_seed():
    """The scatter of the two is 1 and 2 times 0.001: what is left of it is 0.001."""
    found = results((1.0, "none", 0.90), (1.0, "w4a4", 0.95)).difference(four(), plain())
    half = T * 0.001 / math.sqrt(3)
    assert (found.mean, found.low, found.high) == pytest.approx((0.05, 0.05 - half, 0.05 + half))


def test_seeds_that_one_lacks_are_left_out():
    made = rows((1.0, "none", 0.90), (1.0, "w4a4", 0.95))
    found = Results(made[1:]).difference(four(), plain())
    assert found.mean == pytest.approx((0.05 + 0.051) / 2)
    assert Results(made[:1] + made[4:]).difference(four(), plain()) is None


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.1, 0.2, "yes"), (-0.2, -0.1, "no"), (-0.1, 0.1, "can't tell")]
)
def test_signs(low, high, verdict):
    assert findings.sign(Interval((low + high) / 2, low, high)) == verdict
    assert findings.sign(Interval(0.5, math.nan, math.nan)) == "can't tell", "one seed"
    assert findings.sign(None) == "can't tell"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.002, 0.1, "yes"),
        (-0.1, -0.0031, "no"),
        (-0.1, 0.1, "can't tell"),
        (math.nan, math.nan, "can't tell"),
    ],
)
def test_within_a_margin(low, high, verdict):
    assert findings.within(Interval(0, low, high), 0.3) == verdict


@pytest.mark.parametrize(
    ("four_bits", "full", "scatter", "verdict"),
    [
        (0.95, 0.90, 0.001, ["yes", "no"]),
        (0.80, 0.90, 0.001, ["yes", "yes"]),
        (0.90, 0.91, 0.05, ["yes", "can't tell"]),
    ],
)
def test_the_front(four_bits, full, scatter, verdict):
    """The cheapest is always on it."""
    found = results((1.0, "w4a4", four_bits), (1.0, "none", full), scatter=scatter)
    assert [findings.on_front(found, kind, "linear") for kind in (four(), plain())] == verdict


def test_of_two_at_one_cost_the_better_is_on_the_front():
    found = results((1.0, "w4a4", 0.9), (1.0, "w2a2", 0.8))
    verdicts = [findings.on_front(found, Kind("resnet10", 1.0, bits), "linear") for bits in ("w4a4", "w2a2")]
    assert verdicts == ["yes", "no"]


@pytest.mark.parametrize(
    ("given", "scatter", "verdict"),
    [
        ([(1.0, "w4a4", 0.9), (2.0, "w4a4", 0.95), (1.0, "none", 0.92)], 1e-4, "yes"),
        ([(1.0, "w4a4", 0.9), (1.0, "w8a8", 0.92), (1.0, "none", 0.95)], 1e-4, "no"),
        ([(1.0, "w4a4", 0.9), (1.0, "none", 0.95)], 1e-4, "no"),  # half isn't most
        ([(1.0, "w4a4", 0.9), (1.0, "none", 0.92)], 0.1, "can't tell"),
    ],
)
def test_whether_most_of_the_front_is_4_bit(given, scatter, verdict):
    assert findings.mostly_four(results(*given, scatter=scatter), "linear") == verdict


@pytest.mark.parametrize(
    ("accuracy", "scatter", "width", "verdict"),
    [
        (0.95, 0.001, 2.0, "yes"),
        (0.85, 0.001, 2.0, "no"),
        (0.91, 0.05, 2.0, "can't tell"),
        (0.95, 0.001, 4.0, "no"),
    ],
    ids=["better at equal cost", "worse", "unclear", "dearer"],
)
def test_dominated(accuracy, scatter, width, verdict):
    found = results((1.0, "none", 0.9), (width, "w4a4", accuracy), scatter=scatter)
    assert findings.dominated(found, plain())[0] == verdict
    line = next(line for line in findings.findings(found, 0.3) if line.startswith("- Every network"))
    assert f"**{verdict}**" in line


def test_the_network_that_dominates_is_named():
    found = results((1.0, "none", 0.9), (1.0, "w8a8", 0.91), (2.0, "w4a4", 0.95))
    line = next(line for line in findings.findings(found, 0.3) if line.startswith("- Every network"))
    assert line.endswith("resnet10 x 1: yes, w4a4 in resnet10 x 2 has +5.00 (+4.75 to +5.25).")


@pytest.mark.parametrize(
    ("accuracy", "scatter", "verdict"), [(0.899, 1e-5, "yes"), (0.89, 1e-4, "no"), (0.9, 0.01, "can't tell")]
)
def test_within_the_margin_of_full_precision(accuracy, scatter, verdict):
    found = results((1.0, "none", 0.9), (1.0, "w4a4", accuracy), scatter=scatter)
    line = next(line for line in findings.findings(found, 0.3) if "is within 0.3 points" in line)
    assert f"- w4a4 is within 0.3 points of full precision in the same network: **{verdict}**" in line


@pytest.mark.parametrize(("gap", "verdict"), [(0.005, "yes"), (0.02, "no"), (0.01, "can't tell")])
def test_the_gap_over_networks(gap, verdict):
    made = rows((1.0, "none", 0.9), (2.0, "none", 0.9), *((w, "w4a4", 0.9, {"gap": gap}) for w in (1.0, 2.0)))
    for row in made:  # the gap of quantized networks scatters by 1e-4, around its mean
        side = 1e-4 * (int(row["seed"]) - 18) * (row["bits"] == "w4a4")
        row["train_accuracy"] = float(row["train_accuracy"]) + side
    line = next(line for line in findings.findings(Results(made), 0.3) if "generalization gap" in line)
    assert f"**{verdict}**" in line


def test_after_training_is_against_the_same_network_trained():
    after = {"trained": False}
    found = results(
        *((1.0, "none", 0.9), (1.0, "w4a4", 0.89), (1.0, "w4a4", 0.5, after), (1.0, "w2a2", 0.1, after))
    )
    *_, first, second = findings.findings(found, 0.3)
    assert first.startswith("- w4a4 after training, points of accuracy. resnet10 x 1: -39.00 (")
    assert first.endswith(") against trained.")
    assert second.startswith("- w2a2 after training, points of accuracy. resnet10 x 1: -80.00 (")
    assert second.endswith("against full precision.")


def test_one_seed_tells_nothing():
    made = [row for row in rows((1.0, "none", 0.9), (1.0, "w4a4", 0.95)) if row["seed"] == "17"]
    said = "\n".join(findings.findings(Results(made), 0.3))
    assert "**yes**" not in said
    assert "**no**" not in said
    assert "one seed: can't tell" in said


def test_seeds_that_agree_exactly_tell_nothing():
    """Networks that learned nothing name the most frequent class, whatever their bits and seeds."""
    found = results((1.0, "none", 0.55), (1.0, "w4a4", 0.55), (2.0, "w4a4", 0.56), scatter=0.0)
    said = "\n".join(findings.findings(found, 0.3)[:-1])
    assert "within 0.3 points of full precision in the same network: **can't tell**" in said
    assert findings.dominated(found, plain())[0] == "can't tell"


def test_variants_stand_apart_from_the_front():
    found = results((1.0, "none", 0.9), (1.0, "w4a4", 0.85), (1.0, "w4a4", 0.95, {"variant": "better"}))
    assert found.trained == [plain(), four()]
    assert findings.on_front(found, plain(), "linear") == "yes"


def test_the_table_of_variants():
    given = (1.0, "none", 0.9), (1.0, "w4a4", 0.85), (1.0, "w4a4", 0.95, {"variant": "better"})
    head, _, *body = page.variants_table(results(*given, scatter=1e-6), 0.3).splitlines()
    assert head.startswith(
        "| network | bits | variant | accuracy | points against base | points against full"
    )
    assert head.endswith("| within 0.3 points of it | s of training |")
    base, better = ([cell.strip() for cell in line.strip("|").split("|")] for line in body)
    assert base[:4] == ["resnet10 x 1", "w4a4", "base", "85.00% (85.00% to 85.00%)"]
    assert base[4:] == ["", "-5.00 (-5.00 to -5.00)", "no", "60"]
    assert better[2:4] == ["better", "95.00% (95.00% to 95.00%)"]
    assert better[4:] == ["+10.00 (+10.00 to +10.00)", "+5.00 (+5.00 to +5.00)", "yes", "60"]
    assert page.variants_table(results(*given[:2]), 0.3) == ""


def test_a_variant_is_compared_with_full_precision_of_its_own():
    """An init that gives full precision as much as 4 bits isn't what brings them together."""
    changed = {"variant": "init"}
    given = (1.0, "none", 0.9), (1.0, "w4a4", 0.85), (1.0, "none", 0.95, changed), (1.0, "w4a4", 0.9, changed)
    lines = page.variants_table(results(*given, scatter=1e-6), 0.3).splitlines()[2:]
    own = {tuple(cell.strip() for cell in line.strip("|").split("|"))[1:3]: line for line in lines}
    assert "| +5.00 (+5.00 to +5.00) | -5.00 (-5.00 to -5.00) | no |" in own["w4a4", "init"]
    assert "| +5.00 (+5.00 to +5.00) |  |  |" in own["none", "init"], "it is what others are compared with"


def test_the_page_says_what_is_missing(tmp_path, capsys, drawn):  # noqa: F811
    cfg = Pareto(recipe=["x.yaml"], seeds=[17, 18, 19], out=str(tmp_path))
    given = (1.0, "none", 0.9), (2.0, "w4a4", 0.95), (1.0, "w4a4", 0.85, {"variant": "tensor"})
    page.write(cfg, results(*given), [Point(Kind("resnet10", 1.0, "w2a2"), 17)])
    text = (tmp_path / "qat_pareto.md").read_text()
    assert "1 points aren't there yet, such as resnet10-1-w2a2-17." in text
    assert "Trained with torch 2.7.0, cpu, fp32." in text
    assert "| resnet10 x 2 | w4a4 | 0.250 | 1,235 | 95.00% (94.50% to 95.50%) | " in text
    assert set(drawn) == {"qat_pareto.png", "qat_gap.png", "qat_variants.png"}
    said = capsys.readouterr().out
    assert all(f"{tmp_path}/{name}" in said for name in drawn)


def test_the_plot_of_accuracy(tmp_path, drawn):  # noqa: F811
    found = results((1.0, "none", 0.9), (2.0, "none", 0.95), (1.0, "w4a4", 0.85), (2.0, "w4a4", 0.92))
    plot.draw(tmp_path, found)
    figure = drawn["qat_pareto.png"]
    assert scales(figure) == ("log", "linear")
    assert look(figure) == LOOK
    shown = lines(figure)
    assert dict(shown["full precision"]) == pytest.approx({16: 90, 64: 95})
    assert dict(shown["w4a4"]) == pytest.approx({4: 85, 16: 92})
    assert dict(shown["front of the means"]) == pytest.approx({4: 85, 16: 92, 64: 95})
    assert dict(shown["dominated for sure"]) == pytest.approx({16: 90})


def test_text_has_no_gap(tmp_path, drawn):  # noqa: F811
    made = rows((1.0, "none", 0.9), (1.0, "w4a4", 0.85))
    for row in made:
        row |= {"train_accuracy": "", "model_type": "", "width": ""}
    found = Results(made)
    assert found.trained == [Kind("", None, "none"), Kind("", None, "w4a4")]
    assert plot.draw(tmp_path, found) == [tmp_path / "qat_pareto.png"]
    assert "gap" not in page.table(found)
    assert not any("gap" in line for line in findings.findings(found, 0.3))
