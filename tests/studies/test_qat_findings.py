"""The front of accuracy against cost, and what is found on it."""

import random

import pytest
from drawn import LOOK, drawn, lines, look, scales  # noqa: F401

from cadenza.studies import qat_findings, qat_report


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
        found = [(r["linear"], r["top1"]) for r in qat_findings.front(rows, "linear")]
        assert found == sorted(plain_front(rows))
        assert 1 <= len(found) < 40


def test_the_front_is_that_of_the_cost_asked_for():
    rows = [row("none", 1, 0.5, quadratic=2), row("w4a4", 2, 0.4, quadratic=1)]
    assert [r["bits"] for r in qat_findings.front(rows, "linear")] == ["none"]
    assert [r["bits"] for r in qat_findings.front(rows, "quadratic")] == ["w4a4", "none"]


def test_findings_hold():
    rows = [
        row("none", 16, 0.90, gap=0.04),
        row("w8a8", 8, 0.90, gap=0.02),
        row("w4a4", 4, 0.91, gap=0.01),
        row("none", 8, 0.80, width=0.5, gap=0.02),
        row("w4a4", 2, 0.80, width=0.5, gap=0.01),
        row("w4a4", 4, 0.50, trained=False),
    ]
    assert qat_findings.findings(rows) == [
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
    shown = "w4a4 at width 1 (80.00%), w8a8 at width 1 (85.00%), none at width 1 (90.00%)."
    gap = "The generalization gap is"
    assert qat_findings.findings(rows) == [
        f"- The front against linear cost is mostly 4-bit: doesn't hold here. 1 of 3 points: {shown}",
        f"- The front against quadratic cost is mostly 4-bit: doesn't hold here. 1 of 3 points: {shown}",
        "- Every network in full precision is dominated: doesn't hold here. 0 of 1 have a quantized one that "
        "is better in accuracy or linear cost, and no worse in the other.",
        f"- w8a8 against full precision, points of top-1: -5.00 at resnet10 x 1. {gap} 0.00 points larger "
        "on average.",
        f"- w4a4 against full precision, points of top-1: -10.00 at resnet10 x 1. {gap} 3.00 points larger "
        "on average.",
    ]


def test_half_of_the_front_is_not_most_of_it():
    rows = [row("w4a4", 4, 0.80), row("none", 16, 0.90)]
    assert "doesn't hold here. 1 of 2 points" in qat_findings.findings(rows)[0]


def test_findings_need_what_they_compare_with():
    """Without full precision, and quantized after training to bits that no network was trained with."""
    rows = [row("w4a4", 4, 0.80), row("w2a2", 2, 0.12, trained=False)]
    said = "\n".join(qat_findings.findings(rows))
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
    means = qat_findings.over_seeds(qat_findings.as_points(rows))
    assert [(r["bits"], r["trained"], r["seeds"]) for r in means] == [
        *(("w4a4", True, 3), ("w4a4", False, 1), ("none", True, 1))
    ]
    assert (means[0]["top1"], means[0]["low"], means[0]["high"]) == (0.625, 0.5, 0.75)
    assert (means[0]["train_top1"], means[0]["gap"]) == (0.75, 0.125)
    assert (means[0]["macs"], means[0]["width"], means[0]["model_type"]) == (100, 0.5, "resnet10")


@pytest.mark.parametrize(
    ("linear", "top1", "bits", "dominated"),
    [
        (16, 0.90, "w8a8", False),
        (15, 0.90, "w8a8", True),
        (16, 0.91, "w8a8", True),
        (17, 0.95, "w8a8", False),
        (8, 0.89, "w8a8", False),
        (8, 0.95, "none", False),
    ],
)
def test_a_network_is_dominated_by_a_quantized_one_no_worse_in_either(linear, top1, bits, dominated):
    plain = row("none", 16, 0.90)
    others = [row(bits, linear, top1, width=0.5)]
    assert qat_findings.beaten(plain, [plain, *others]) == dominated


def test_some_dominated_networks_are_not_all():
    rows = [row("none", 16, 0.9), row("w8a8", 8, 0.9), row("none", 4, 0.8, width=0.5)]
    assert "is dominated: doesn't hold here. 1 of 2 have" in qat_findings.findings(rows)[2]


def test_four_bits_are_those_of_the_weights():
    rows = [row("w4a8", 4, 0.7), row("w4a2", 3, 0.6), row("w8a4", 8, 0.8)]
    assert "holds here. 2 of 3 points" in qat_findings.findings(rows)[0]
    rows = [row("w8a4", 8, 0.8), row("w8a8", 4, 0.7), row("w4a4", 2, 0.6)]
    assert "doesn't hold here. 1 of 3 points" in qat_findings.findings(rows)[0]


def test_each_front_has_its_own_cost():
    rows = [row("none", 1, 0.5, quadratic=2), row("w4a4", 2, 0.4, quadratic=1)]
    linear, quadratic, *_ = qat_findings.findings(rows)
    assert "0 of 1 points: none at width 1 (50.00%)." in linear
    assert "1 of 2 points: w4a4 at width 1 (40.00%), none at width 1 (50.00%)." in quadratic


def test_gains_are_in_the_same_network():
    """By network and then width; the number of seeds where both have it; the mean of the gaps."""
    rows = [
        row("w4a4", 1, 0.5, model_type="resnet18", seeds=3, gap=0.05),
        row("w4a4", 1, 0.6, width=2.0, seeds=3, gap=0.01),
        row("w4a4", 1, 0.7, width=0.5, seeds=1, gap=0.02),
        row("w4a4", 1, 0.9, width=4.0),
        row("none", 9, 0.65, width=0.5, seeds=1, gap=0.03),
        row("none", 9, 0.65, width=2.0, seeds=2, gap=0.03),
        row("none", 9, 0.40, model_type="resnet18", seeds=3, gap=0.01),
    ]
    (line,) = (each for each in qat_findings.findings(rows) if each.startswith("- w4a4 against"))
    assert line == (
        "- w4a4 against full precision, points of top-1: +5.00 at resnet10 x 0.5, -5.00 at resnet10 x 2, "
        "+10.00 at resnet18 x 1, 3 seeds. The generalization gap is 0.33 points larger on average."
    )


def test_after_training_is_beside_the_same_network_trained():
    rows = [
        row("w4a4", 4, 0.80),
        row("w4a4", 4, 0.70, width=0.5),
        row("w4a4", 4, 0.10, trained=False),
        row("w4a4", 4, 0.20, trained=False, width=0.5),
        row("w4a4", 4, 0.30, trained=False, width=2.0),
        row("w2a2", 4, 0.05, trained=False),
    ]
    assert qat_findings.findings(rows)[-2:] == [
        "- w4a4 after training: 10.00% (trained: 80.00%), 20.00% (trained: 70.00%), 30.00%.",
        "- w2a2 after training: 5.00%.",
    ]


def means():
    """Of two widths, with the columns that tables and plots take."""
    common = {"linear_ratio": 1.0, "memory_bits": 1_234_567.0, "train_top1": 0.96}
    rows = [
        row("w4a4", 4, 0.80, width=0.5, gap=0.16, linear_ratio=0.25),
        row("none", 16, 0.75, width=0.5, gap=0.21),
        row("w4a4", 4, 0.10, width=0.5, trained=False, gap=0.86),
        row("none", 64, 0.90, seeds=3, low=0.88, high=0.93, gap=0.06),
        row("w4a4", 16, 0.85, seeds=2, low=0.84, high=0.86, gap=0.11),
    ]
    return [{"low": each["top1"], "high": each["top1"], **common, **each} for each in rows]


TABLE = """\
| network | bits | linear cost, 16 bit = 1 | weights, kbit | top-1 | over seeds \
| top-1, training images | gap |
| --- | --- | --- | --- | --- | --- | --- | --- |
| resnet10 x 0.5 | none | 1.000 | 1,235 | 75.00% |  | 96.00% | 21.00% |
| resnet10 x 0.5 | w4a4 | 0.250 | 1,235 | 80.00% |  | 96.00% | 16.00% |
| resnet10 x 0.5 | w4a4, after training | 1.000 | 1,235 | 10.00% |  | 96.00% | 86.00% |
| resnet10 x 1 | none | 1.000 | 1,235 | 90.00% | 88.00% to 93.00% | 96.00% | 6.00% |
| resnet10 x 1 | w4a4 | 1.000 | 1,235 | 85.00% | 84.00% to 86.00% | 96.00% | 11.00% |"""


def test_the_table_goes_from_wide_bits_to_narrow_in_each_network():
    assert qat_report.table(means()) == TABLE
    assert qat_report.table(means()[::-1]) == TABLE


def test_the_page_and_its_plots(tmp_path, monkeypatch, drawn, capsys):  # noqa: F811
    monkeypatch.setattr(qat_findings, "over_seeds", lambda rows: {"rows": means()}[rows])
    qat_report.write(tmp_path, "rows")
    page = "\n".join([TABLE, "", *qat_findings.findings(means())])
    assert (tmp_path / "qat_pareto.md").read_text() == f"{page}\n"
    assert capsys.readouterr().out == (
        f"{page}\n\nwritten: {tmp_path / 'qat_pareto'}.csv, .md, .png, {tmp_path / 'qat_gap.png'}\n"
    )
    accuracy, gap = drawn["qat_pareto.png"], drawn["qat_gap.png"]
    assert lines(gap) == {
        "w4a4": [(4, pytest.approx(16)), (16, pytest.approx(11))],
        "full precision": [(16, pytest.approx(21)), (64, pytest.approx(6))],
    }
    assert lines(accuracy) == {
        "w4a4": [(4, pytest.approx(80)), (16, pytest.approx(85))],
        "full precision": [(16, pytest.approx(75)), (64, pytest.approx(90))],
        "front": [(4, pytest.approx(80)), (16, pytest.approx(85)), (64, pytest.approx(90))],
        "dominated": [(16, pytest.approx(75))],
    }
    for figure, label in ((accuracy, "top-1, %"), (gap, "generalization gap, points of top-1")):
        (axes,) = figure.axes
        assert look(figure) == LOOK
        assert scales(figure) == ("log", "linear")
        assert axes.get_xlabel() == "compute cost, MAC x bits (linear model)"
        assert axes.get_ylabel() == label
        assert [each.get_text() for each in axes.get_legend().get_texts()] == list(lines(figure))


def test_the_front_lies_pale_behind_points_and_crosses(tmp_path, drawn):  # noqa: F811
    qat_report._plot(tmp_path / "some.png", means())
    (axes,) = drawn["some.png"].axes
    by_name = {line.get_label(): line for line in axes.get_lines()}
    front, crosses = by_name["front"], by_name["dominated"]
    assert front.get_drawstyle() == "steps-post"
    assert (front.get_color(), front.get_alpha(), front.get_linewidth()) == ("black", 0.4, 5)
    assert front.get_zorder() < min(each[0].get_zorder() for each in axes.containers)
    assert (crosses.get_marker(), crosses.get_color(), crosses.get_markersize()) == ("x", "k", 12)
    for line, caps, _ in axes.containers:
        assert line.get_marker() == "o"
        assert {cap.get_markersize() for cap in caps} == {6}
    qat_report._plot_gap(tmp_path / "other.png", means())
    assert {line.get_marker() for line in drawn["other.png"].axes[0].get_lines()} == {"o"}


def test_no_window_is_opened(tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("svg")
    qat_report._plot_gap(tmp_path / "some.png", means())
    assert matplotlib.get_backend().lower() == "agg"
    assert (tmp_path / "some.png").read_bytes()[16:24] == bytes([0, 0, 3, 72, 0, 0, 2, 28]), "840 x 540"


def test_bars_are_the_spread_over_seeds(tmp_path, drawn):  # noqa: F811
    qat_report._plot(tmp_path / "some.png", means())
    (axes,) = drawn["some.png"].axes
    plain = axes.containers[1]
    assert plain.get_label() == "full precision"
    (bars,) = plain[2]
    ends = [[float(y) for _, y in segment] for segment in bars.get_segments()]
    assert ends == [[pytest.approx(75), pytest.approx(75)], [pytest.approx(88), pytest.approx(93)]]
