"""What it takes to reach a loss or a score: interpolation, seeds, ratios and prices."""

from types import SimpleNamespace

import pytest

from cadenza.studies.pretraining_pareto.points import Point, Spent
from cadenza.studies.pretraining_pareto.targets import Line, Target, reached, rows


def curve(run, values, hours=1.0, measure="loss", flops=1e12):
    """Points by batch, each of which takes `hours`."""
    return [
        Point(run, measure, batch, Spent(batch * hours, batch * 1000, flops and batch * flops), value)
        for batch, value in values.items()
    ]


def of(name, devices=8):
    return SimpleNamespace(name=name, device=devices and {"world_size": devices})


def line(*names, name=None, devices=8):
    return Line(name or names[0], [of(each, devices) for each in names])


def test_a_target_between_two_points_is_reached_on_their_line():
    found = reached(curve("a", {10: 4.0, 20: 2.0, 30: 1.0}, hours=0.5), 3.5)
    assert found.spent == (6.25, 12_500, 1.25e13)
    assert not found.most
    assert reached(curve("a", {10: 4.0, 20: 2.0}), 2.0).spent.hours == 20, "at a point it is the point"


def test_a_score_is_reached_from_below():
    assert reached(curve("a", {10: 0.5, 20: 0.7}, measure="score"), 0.6).spent.hours == pytest.approx(15)
    assert reached(curve("a", {10: 0.5, 20: 0.7}, measure="score"), 0.71) is None


def test_the_first_crossing_counts_in_whatever_order_points_come():
    points = curve("a", {30: 1.0, 10: 3.0, 20: 3.5})
    assert reached(points, 2.25).spent.hours == 25
    assert reached(curve("a", {1: 3.0, 2: 1.0, 3: 3.0, 4: 1.0}), 2.0).spent.hours == 1.5


def test_what_the_first_point_has_may_have_been_reached_before():
    found = reached(curve("a", {10: 2.0, 20: 1.0}), 2.5)
    assert (found.spent.hours, found.most) == (10, True)


def test_unknown_flops_stay_unknown():
    assert reached(curve("a", {1: 2.0, 2: 1.0}, flops=None), 1.5).spent == (1.5, 1500, None)
    assert reached([], 1.0) is None


def test_ratios_are_to_the_first_line():
    points = [*curve("bert", {10: 3.0, 20: 2.0}, hours=2), *curve("mosaic", {10: 3.0, 20: 1.0})]
    slow, fast = rows([line("bert"), line("mosaic")], points, [Target("loss", 2.0)], None)
    assert (slow["hours"]["mean"], fast["hours"]["mean"]) == (40, 15)
    assert slow["ratio"]["hours"]["mean"] == 1
    assert fast["ratio"]["hours"]["mean"] == 0.375
    assert fast["ratio"]["tokens"]["mean"] == 0.75
    assert fast["dollars"] is None, "there is no price"


def test_a_group_has_a_mean_and_a_range():
    points = [
        *curve("a-1", {1: 3.0, 2: 1.0}),
        *curve("a-2", {1: 3.0, 2: 1.0}, hours=3),
        *curve("b", {1: 3, 2: 1}),
    ]
    group, single = rows([line("a-1", "a-2", name="a"), line("b")], points, [Target("loss", 2.0)], None)
    assert (group["runs"], group["reached"]) == (2, 2)
    assert group["hours"] == {"mean": 3.0, "low": 1.5, "high": 4.5}
    assert single["ratio"]["hours"] == {"mean": 0.5, "low": 1.5 / 4.5, "high": 1.0}


def test_a_group_of_which_some_do_not_arrive_has_no_mean():
    """It would be the mean of the quickest."""
    points = [*curve("a-1", {1: 3.0, 2: 1.0}), *curve("a-2", {1: 3.0, 2: 2.5})]
    (group,) = rows([line("a-1", "a-2", name="a")], points, [Target("loss", 2.0)], None)
    assert (group["runs"], group["reached"]) == (2, 1)
    assert group["hours"] == {"mean": None, "low": 1.5, "high": 1.5}
    assert group["ratio"]["hours"] is None


def test_there_is_no_ratio_to_what_may_be_less():
    points = [*curve("a", {10: 1.0}), *curve("b", {1: 3.0, 2: 1.0})]
    for lines in ([line("a"), line("b")], [line("b"), line("a")]):
        assert rows(lines, points, [Target("loss", 2.0)], None)[1]["ratio"]["hours"] is None


def test_the_price_is_that_of_all_devices():
    points = curve("a", {1: 3.0, 2: 1.0})
    for devices, dollars in ((8, 24.0), (1, 3.0)):
        (row,) = rows([line("a", devices=devices)], points, [Target("loss", 2.0)], 2.0)
        assert row["dollars"]["mean"] == dollars
    (row,) = rows([line("a", devices=None)], points, [Target("loss", 2.0)], 2.0)
    assert row["dollars"] is None, "a run that hasn't ended has no record of its devices"


def test_measures_are_kept_apart():
    points = [*curve("a", {1: 3.0, 2: 1.0}), *curve("a", {1: 0.5, 2: 0.9}, measure="score")]
    wanted = [Target("loss", 2.0), Target("score", 0.8)]
    assert [row["hours"]["mean"] for row in rows([line("a")], points, wanted, None)] == [
        1.5,
        pytest.approx(1.75),
    ]


def test_what_is_not_reached_has_no_cost():
    (row,) = rows([line("a")], curve("a", {1: 3.0}), [Target("loss", 2.0)], 1.0)
    assert row["reached"] == 0
    assert [row[cost] for cost in ("hours", "tokens", "flops", "dollars")] == [None] * 4
