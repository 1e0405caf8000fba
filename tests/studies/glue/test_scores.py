"""Scores: spread, the best rate and ties, averages, differences by pairs of seeds."""

import math

import pytest

from cadenza.studies.glue import hours, scores
from cadenza.studies.glue.recipes import Cell
from cadenza.studies.glue.scores import Average, Score, difference
from cadenza.studies.glue.settings import Glue
from cadenza.studies.intervals import interval


def score(*values, task="a", seeds=None):
    return Score("m", task, "pretrained", 0.1, 1, dict(zip(seeds or range(len(values)), values, strict=True)))


def found(rates):
    """The score of a task whose runs have these values by rate."""
    cfg = Glue(models=["m"], tasks={"a": {"seeds": [1, 2]}})
    rows = {
        Cell("m", "a", "pretrained", rate, seed): {"metrics": f'{{"accuracy": {value}}}'}
        for rate, values in rates.items()
        for seed, value in enumerate(values)
    }
    (one,) = scores.scores(cfg, rows)
    return one


def test_mean_and_standard_deviation():
    one = score(0.5, 0.6, 0.8)
    assert one.mean == pytest.approx(1.9 / 3)
    assert one.deviation == pytest.approx(math.sqrt((0.5**2 + 0.6**2 + 0.8**2 - 1.9**2 / 3) / 2))
    assert math.isnan(score(0.5).deviation)


def test_the_best_rate_is_that_of_the_highest_mean_and_of_equals_the_smaller():
    assert found({0.1: [0.4, 0.9], 0.2: [0.8, 0.6]}).learning_rate == 0.2
    for order in ((0.3, 0.1, 0.2), (0.1, 0.2, 0.3)):
        assert found({rate: [0.5, 0.7] for rate in order}).learning_rate == 0.1
    best = found({0.1: ["null", 0.9], 0.2: [0.1, 0.1]})
    assert (best.learning_rate, best.rates) == (0.2, 2), "a score that isn't finite is the last"


def test_differences_are_paired_by_seed():
    """Two models whose scores vary much and whose difference varies little."""
    one, other = score(0.51, 0.72, 0.93), score(0.50, 0.70, 0.90)
    change = difference(one, other)
    # Differences 0.01, 0.02, 0.03: mean 0.02, standard deviation 0.01; t of 2 degrees of freedom is 4.3027.
    assert change.mean == pytest.approx(0.02)
    assert (change.low, change.high) == pytest.approx((0.02 - 0.024841, 0.02 + 0.024841), abs=1e-6)
    assert not change.tells
    assert difference(score(0.6, 0.61, 0.62), score(0.5, 0.51, 0.53)).tells


def test_other_seeds_or_one_seed_give_no_interval():
    for one, other in (
        (score(0.5, 0.6), score(0.4, 0.5, seeds=[7, 8])),
        (score(0.55), score(0.45)),
    ):
        change = difference(one, other)
        assert change.mean == pytest.approx(0.1)
        assert math.isnan(change.low)
        assert not change.tells


def test_an_average_has_seeds_where_all_tasks_have_the_same():
    same = Average("m", False, [score(0.5, 0.7), score(0.1, 0.2, task="b")], [])
    assert same.seeds == pytest.approx({0: 0.3, 1: 0.45})
    assert same.mean == pytest.approx((0.6 + 0.15) / 2)
    other = Average("m", False, [score(0.5, 0.7), score(0.1, task="b")], [])
    assert other.seeds == {}
    assert other.mean == pytest.approx((0.6 + 0.1) / 2)
    assert math.isnan(Average("m", False, [score(0.5)], ["b"]).mean)


def test_intervals_hold_the_mean_of_a_normal_sample_as_often_as_they_say():
    generator = __import__("random").Random(0)
    samples = [[generator.gauss(1, 2) for _ in range(4)] for _ in range(2000)]
    held = sum(interval(s).low <= 1 <= interval(s).high for s in samples) / 2000
    assert abs(held - 0.95) < 0.02


def test_hours_count_overlapping_runs_once_on_the_clock():
    spans = [(0, 3600), (1800, 5400), (9000, 12600)]
    rows = {
        Cell("m" if number else "n", "a", "pretrained", 0.1, number): {
            **{"training_seconds": "1800", "began": str(begin), "ended": str(end)}
        }
        for number, (begin, end) in enumerate(spans)
    }
    spent = hours.hours(rows)
    assert spent["m"] == hours.Hours(2, 1.0, 2.0, 2.0)
    assert spent[hours.TOTAL] == hours.Hours(3, 1.5, 3.0, 2.5)
    assert hours.TOTAL not in hours.hours({cell: row for cell, row in rows.items() if cell.model == "m"})
