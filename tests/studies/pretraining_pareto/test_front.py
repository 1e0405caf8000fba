"""The front: the points that no other one beats in cost and quality."""

from cadenza.studies.pretraining_pareto.points import Point, Spent, front, fronts, own_fronts


def point(hours, value, measure="loss", run="a", tokens=None, flops=None):
    return Point(run, measure, 1, Spent(hours, tokens, flops), value)


def values(points):
    return [(each.cost("hours"), each.value) for each in points]


def test_a_loss_is_better_if_it_is_lower_and_a_score_if_it_is_higher():
    costs = [(1, 3.0), (2, 2.0), (3, 2.5), (4, 1.0)]
    assert values(front([point(*each) for each in costs], "hours")) == [(1, 3.0), (2, 2.0), (4, 1.0)]
    scores = [point(*each, "score") for each in costs]
    assert values(front(scores, "hours")) == [(1, 3.0)], "the first is the best and the cheapest"


def test_a_point_is_beaten_by_one_that_is_better_in_one_and_equal_in_the_other():
    assert values(front([point(1, 2.0), point(2, 2.0)], "hours")) == [(1, 2.0)]
    assert values(front([point(1, 2.0), point(1, 1.5)], "hours")) == [(1, 1.5)]


def test_equal_points_are_all_on_the_front():
    two = [point(1, 2.0, run="a"), point(1, 2.0, run="b")]
    assert front(two, "hours") == two


def test_no_point_of_the_front_is_beaten_and_every_other_one_is():
    points = [point((7 * n) % 11, (5 * n) % 13, "score") for n in range(40)]
    kept = front(points, "hours")

    def beaten(one):
        costs = [(p.cost("hours"), -p.value) for p in points]
        own = one.cost("hours"), -one.value
        return any(c <= own[0] and q <= own[1] and (c, q) != own for c, q in costs)

    assert 1 < len(kept) < len(points)
    assert all(beaten(each) != (each in kept) for each in points)


def test_each_axis_has_a_front_of_its_own():
    slow, large = point(5, 2.0, tokens=10, flops=None), point(1, 2.5, tokens=20, flops=1e9)
    found = fronts([slow, large])
    assert found == {"hours": [large, slow], "tokens": [slow], "flops": [large]}, "unknown FLOPs are out"


def test_a_run_has_its_own_front_whatever_others_reach():
    best, worse, back = point(1, 1.0, run="a"), point(2, 3.0, run="b"), point(3, 3.5, run="b")
    assert fronts([best, worse, back])["hours"] == [best]
    assert own_fronts([best, worse, back])["hours"] == [best, worse]
