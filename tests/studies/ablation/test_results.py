"""What is compared, from made-up cells: signs, pairs of seeds, intervals, the time to a loss."""

import json
import math

import pytest

from cadenza.studies.ablation import findings
from cadenza.studies.ablation.results import Comparison, Results, reached
from cadenza.studies.ablation.speeds import Speeds
from cadenza.studies.intervals import interval

STEPS = {
    "bert": {"steps": 100, "time": 100},
    "mosaic": {"steps": 100, "time": 200},
    "without_glu": {"steps": 100, "time": 400},
}
SCATTER = {17: 0.02, 18: -0.02, 19: 0.0}  # of a difference between seeds


def cell(row, steps, seed, loss, accuracy=0.6, curve=None):
    """A line of ablation.csv."""
    curve = curve or [[steps, loss]]
    values = {"row": row, "seed": seed, "steps": steps, "loss": loss, "accuracy": accuracy}
    return {**{key: str(value) for key, value in values.items()}, "curve": json.dumps(curve)}


def speeds():
    """Four rounds; the third is slow, the machine being busy."""
    seconds = {"bert": 0.2, "mosaic": 0.1, "without_glu": 0.05}
    busy = (1, 1, 3, 1)
    return Speeds({name: [(own * b, 0.2 * b) for b in busy] for name, own in seconds.items()}, "bert")


def results(seeds=(17, 18, 19)):
    """The loss of seed 17 + n is n higher; mosaic reaches bert's final loss at batch 100 of 200."""
    cells = []
    for seed in seeds:
        base = seed - 17
        cells.append(cell("bert", 100, seed, 3.0 + base, 0.60, [[50, 6.0 + base], [100, 3.0 + base]]))
        cells.append(cell("mosaic", 100, seed, 3.0 + base, 0.61))
        curve = [[50, 4.0 + base], [150, 2.0 + base], [200, 2.5 + base]]
        cells.append(cell("mosaic", 200, seed, 2.5 + base, 0.63, curve))
        cells.append(cell("without_glu", 100, seed, 3.01 + base + SCATTER[seed], 0.60 + SCATTER[seed] / 2))
        lacking = 2.8 + base + SCATTER[seed]
        cells.append(cell("without_glu", 400, seed, lacking, 0.60 + SCATTER[seed] / 2, [[400, 9.0]]))
    return Results(cells, STEPS, speeds(), "bert")


RESULTS = results()
GLU = Comparison("glu", "mosaic", "without_glu")
MOSAIC = Comparison("mosaic", "mosaic", "bert")


def test_an_interval_is_students():
    """Of 1, 2, 3: the standard error is 1/sqrt(3), of which 4.303 count at two degrees of freedom."""
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == 2
    assert found.high - 2 == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)
    assert not found.tells
    assert interval([2.0, 2.1, 2.2]).tells
    assert interval([-2.0, -2.1, -2.2]).tells
    alone = interval([2.0])
    assert alone.mean == 2
    assert math.isnan(alone.low)
    assert not alone.tells


def test_differences_are_paired_by_seed():
    """Losses scatter by 1 over seeds, their differences by 0.02: without pairs it couldn't be told."""
    found = RESULTS.difference(GLU, "time", "loss")
    assert found.mean == pytest.approx(-0.3)
    assert found.high < -0.2
    assert found.tells
    turned = RESULTS.difference(Comparison("x", "without_glu", "mosaic"), "time", "loss")
    assert (turned.mean, turned.low) == (pytest.approx(0.3), pytest.approx(-found.high))


def test_each_budget_has_its_own_steps():
    assert RESULTS.by_seed("mosaic", "steps", "loss") == {17: 3.0, 18: 4.0, 19: 5.0}
    assert RESULTS.by_seed("mosaic", "time", "loss") == {17: 2.5, 18: 3.5, 19: 4.5}
    assert RESULTS.by_seed("bert", "steps", "loss") == RESULTS.by_seed("bert", "time", "loss")


def test_without_fine_tuning_there_is_no_accuracy():
    cells = [cell("bert", 100, 17, 5.0, accuracy="")]
    bare = Results(cells, {"bert": {"steps": 100, "time": 100}}, speeds(), "bert")
    assert bare.mean("bert", "time", "accuracy") is None
    assert bare.difference(Comparison("a", "bert", "bert"), "time", "accuracy") is None


@pytest.mark.parametrize(
    ("loss", "at"), [(5.0, 10), (4.5, 15), (4.0, 20), (3.5, 37.5), (6.0, 10), (2.9, None)]
)
def test_the_time_to_a_loss_is_interpolated(loss, at):
    """Between the evaluations around it; the first that reaches it counts, though the loss rises again."""
    assert reached([(10, 5.0), (20, 4.0), (30, 4.25), (40, 3.25), (50, 3.0)], loss) == at


def test_the_time_to_a_loss_is_a_share_of_the_baselines_time():
    """A step of mosaic takes half of bert's; its curve reaches bert's final loss half-way, at batch 100."""
    assert RESULTS.shares("mosaic", "bert") == pytest.approx([0.5, 0.5, 0.5])
    assert RESULTS.shares("bert", "bert") == [1.0, 1.0, 1.0]
    assert RESULTS.shares("bert", "mosaic") == [None, None, None]


def test_findings_say_signs_intervals_and_what_cant_be_told():
    first, second, *reaching = findings.findings(RESULTS, [GLU, MOSAIC], ["bert"])
    assert first == (
        "- **glu** (mosaic against without_glu): a step takes 2.00 (2.00 to 2.00) of the time; "
        "at equal steps loss -0.010 (-0.060 to +0.040): can't tell, "
        "accuracy in points +1.0 (-1.5 to +3.5): can't tell; "
        "at equal time loss -0.300 (-0.350 to -0.250), accuracy in points +3.0 (+0.5 to +5.5)."
    )
    assert second.startswith("- **mosaic** (mosaic against bert): a step takes 0.50 (0.50 to 0.50) of the")
    assert reaching == [
        "- mosaic reaches the final loss of bert in 0.50 (0.50 to 0.50) of the time of bert.",
        "- without_glu reaches the final loss of bert with 0 of 3 seeds.",
    ]


def test_one_seed_cant_tell():
    said, *_ = findings.findings(results(seeds=(17,)), [GLU], [])
    assert "at equal time loss -0.320 (one seed: can't tell)" in said
    assert "nan" not in said


def test_the_ratio_of_two_speeds_is_that_of_each_round():
    """Rounds in which the machine was slow for both change nothing."""
    found = speeds().ratio("mosaic", "without_glu")
    assert (found.mean, found.low, found.high) == pytest.approx((2.0, 2.0, 2.0))
    assert speeds().seconds("bert") == 0.2
    assert speeds().seconds("mosaic") == pytest.approx(0.1)
