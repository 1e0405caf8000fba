"""The front of accuracy against cost, and what is found on it."""

import random

import pytest

from cadenza.studies import pareto_findings


def row(bits, linear, top1, quadratic=None, **more):
    """A mean over seeds, as findings take it."""
    quadratic = linear if quadratic is None else quadratic
    common = {"model_type": "resnet10", "width": 1.0, "trained": True, "gap": 0.0, "seeds": 1}
    return {**common, "bits": bits, "linear": linear, "quadratic": quadratic, "top1": top1, **more}


def plain_front(rows):
    """Those of which no other is as cheap and as good, and better in one of the two."""

    def beats(a, b):
        as_good = a["linear"] <= b["linear"] and a["top1"] >= b["top1"]
        return as_good and (a["linear"], a["top1"]) != (b["linear"], b["top1"])

    return {(r["linear"], r["top1"]) for r in rows if not any(beats(other, r) for other in rows)}


@pytest.mark.parametrize("seed", range(20))
def test_the_front_equals_a_plain_search(seed):
    """Also where costs and accuracies are equal, as those of small whole numbers are."""
    draw = random.Random(seed)
    for most in (10**6, 8):
        rows = [row("none", draw.randrange(most), draw.randrange(most) / most) for _ in range(40)]
        found = [(r["linear"], r["top1"]) for r in pareto_findings.front(rows, "linear")]
        assert found == sorted(plain_front(rows))
        assert 1 <= len(found) < 40


def test_the_front_is_that_of_the_cost_asked_for():
    rows = [row("none", 1, 0.5, quadratic=2), row("w4a4", 2, 0.4, quadratic=1)]
    assert [r["bits"] for r in pareto_findings.front(rows, "linear")] == ["none"]
    assert [r["bits"] for r in pareto_findings.front(rows, "quadratic")] == ["w4a4", "none"]


def test_findings_hold():
    rows = [
        row("none", 16, 0.90, gap=0.04),
        row("w8a8", 8, 0.90, gap=0.02),
        row("w4a4", 4, 0.91, gap=0.01),
        row("none", 8, 0.80, width=0.5, gap=0.02),
        row("w4a4", 2, 0.80, width=0.5, gap=0.01),
        row("w4a4", 4, 0.50, trained=False),
    ]
    assert pareto_findings.findings(rows) == [
        "- The front against linear cost is mostly 4-bit: holds here. 2 of 2 points: "
        "w4a4 at width 0.5 (80.00%), w4a4 at width 1 (91.00%).",
        "- The front against quadratic cost is mostly 4-bit: holds here. 2 of 2 points: "
        "w4a4 at width 0.5 (80.00%), w4a4 at width 1 (91.00%).",
        "- Every network in full precision is dominated: holds here. 2 of 2 have a quantized one that is "
        "better in accuracy or linear cost, and no worse in the other.",
        "- w8a8 against full precision, points of top-1: +0.00 at resnet10 x 1. The generalization gap is "
        "2.00 points smaller on average.",
        "- w4a4 against full precision, points of top-1: +0.00 at resnet10 x 0.5, +1.00 at resnet10 x 1. "
        "The generalization gap is 2.00 points smaller on average.",
        "- w4a4 after training: 50.00% (trained: 91.00%).",
    ]


def test_findings_can_be_refuted():
    rows = [row("none", 16, 0.90), row("w8a8", 8, 0.85), row("w4a4", 4, 0.80, gap=0.03)]
    lines = pareto_findings.findings(rows)
    assert "mostly 4-bit: doesn't hold here. 1 of 3 points" in lines[0]
    assert "mostly 4-bit: doesn't hold here. 1 of 3 points" in lines[1]
    assert "is dominated: doesn't hold here. 0 of 1 have" in lines[2]
    assert "w4a4 against full precision, points of top-1: -10.00 at resnet10 x 1. " in lines[4]
    assert "gap is 3.00 points larger" in lines[4]


def test_half_of_the_front_is_not_most_of_it():
    rows = [row("w4a4", 4, 0.80), row("none", 16, 0.90)]
    assert "doesn't hold here. 1 of 2 points" in pareto_findings.findings(rows)[0]


def test_findings_need_what_they_compare_with():
    """Without full precision, and quantized after training to bits that no network was trained with."""
    rows = [row("w4a4", 4, 0.80), row("w2a2", 2, 0.12, trained=False)]
    said = "\n".join(pareto_findings.findings(rows))
    assert "holds here. 0 of 0" not in said
    assert ": ." not in said
    assert "w2a2 after training: 12.00%" in said


def test_means_over_seeds():
    shared = {"model_type": "resnet10", "width": "0.5", "settings": "a", "macs": "100"}
    rows = [
        {**shared, "bits": bits, "seed": seed, "trained": trained, "top1": top1, "train_top1": "0.75"}
        for bits, seed, trained, top1 in (
            ("w4a4", "17", "True", "0.5"),
            ("w4a4", "18", "True", "0.75"),
            ("w4a4", "19", "True", "0.625"),
            ("w4a4", "17", "False", "0.25"),
            ("none", "17", "True", "0.5"),
        )
    ]
    means = pareto_findings.over_seeds(pareto_findings.as_points(rows))
    assert [(r["bits"], r["trained"], r["seeds"]) for r in means] == [
        *(("w4a4", True, 3), ("w4a4", False, 1), ("none", True, 1))
    ]
    assert (means[0]["top1"], means[0]["low"], means[0]["high"]) == (0.625, 0.5, 0.75)
    assert (means[0]["train_top1"], means[0]["gap"]) == (0.75, 0.125)
    assert (means[0]["macs"], means[0]["width"], means[0]["model_type"]) == (100, 0.5, "resnet10")
