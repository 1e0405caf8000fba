"""The command: what it writes, prints and refuses, on made-up runs."""

import csv
import json
import shlex

import made_runs
import pytest
from drawn import drawn, points  # noqa: F401

from cadenza.studies.pretraining_pareto.__main__ import main

STARTS = {"rte": {"metrics": ["accuracy"], "after": None}}


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Two seeds of a slow run, and a fast one whose FLOPs aren't known."""
    monkeypatch.chdir(tmp_path)
    made_runs.run(tmp_path / "runs/bert-17", {2: 4.0, 4: 3.0, 6: 3.5}, hours=2.0)
    made_runs.run(tmp_path / "runs/bert-18", {2: 4.0, 4: 3.2, 6: 2.0}, hours=2.0, seed=18)
    made_runs.run(tmp_path / "runs/fast", {2: 4.5, 4: 2.5, 6: 1.5}, flops=False, devices=4)
    made_runs.checkpoints(tmp_path / "runs/fast", 3, 6)
    return ["runs/bert-17", "runs/bert-18", "runs/fast"]


@pytest.fixture
def scores(tmp_path):
    """Scores of the checkpoints of `fast`."""
    models = {f"runs/fast/checkpoints/ep0-ba{batch}-rank0.pt": score for batch, score in ((3, 0.6), (6, 0.7))}
    made = [{"model": model, "starts": {"rte": "pretrained"}, "mean": each} for model, each in models.items()]
    (tmp_path / "glue.json").write_text(json.dumps({"tasks": STARTS, "averages": made}))
    return "glue.json"


def written(tmp_path):
    """The rows of the CSV file, the JSON file, and the page."""
    with (tmp_path / "out/pareto.csv").open() as file:
        rows = list(csv.DictReader(file))
    content = json.loads((tmp_path / "out/pareto.json").read_text())
    return rows, content, (tmp_path / "out/pareto.md").read_text()


def test_points_are_marked_if_they_are_on_the_front(folders, tmp_path, capsys):
    assert main([*folders, "--out", "out"]) == 0
    rows, content, page = written(tmp_path)
    marked = {(r["run"], int(r["batch"])): (r["front_hours"], r["own_front_hours"]) for r in rows}
    assert marked[("fast", 2)] == ("True", "True")
    assert marked[("bert-17", 2)] == ("False", "True"), "4.0 after 4 hours, when fast has 2.5 already"
    assert marked[("bert-17", 6)] == ("False", "False")
    assert len(marked) == 9
    assert [str(p["front_hours"]) for p in content["points"]] == [row["front_hours"] for row in rows]
    shown = capsys.readouterr().out
    assert "written: out/pareto.md, .csv, .json, .png" in shown
    assert page.startswith(shown.split("\n\nwritten")[0])
    assert "## All points: loss" in page
    assert "## All points" not in shown


def test_costs_and_ratios_of_groups(folders, tmp_path):
    arguments = ["--group", "bert=runs/bert-17,runs/bert-18", "--target", "3.2", "--target", "loss=0.5"]
    assert main([*folders, *arguments, "--price", "2", "--out", "out"]) == 0
    _, content, page = written(tmp_path)
    bert, fast, *_ = content["targets"]
    assert [row["line"] for row in content["targets"]] == ["bert", "fast"] * 2
    assert bert["hours"] == {"mean": pytest.approx(7.6), "low": pytest.approx(7.2), "high": pytest.approx(8)}
    assert fast["hours"]["mean"] == pytest.approx(3.3)
    assert bert["dollars"]["mean"] == pytest.approx(7.6 * 8 * 2)
    assert fast["dollars"]["mean"] == pytest.approx(3.3 * 4 * 2)
    assert fast["flops"] is None
    assert "| loss 3.2 | bert | 2 of 2 | 7.60 (7.20 to 8.00) |" in page
    assert "| loss 3.2 | fast | yes | 3.30 | 3,300 | not known | 26.40 | 0.43 (0.41 to 0.46) |" in page
    assert "| loss 0.5 | fast | not reached |" in page


def test_what_a_reader_must_know_is_said(folders, tmp_path):
    made_runs.run(tmp_path / "runs/more", {2: 3.0}, ended=False, model__pretrained="some-bert")
    assert main([*folders, "runs/more", "--price", "1", "--out", "out"]) == 0
    _, content, page = written(tmp_path)
    unended, hours, flops, started = content["notes"]
    assert unended.startswith("more hasn't ended")
    assert hours.startswith("Hours are of different devices (8 x A, 4 x A)")
    assert flops.startswith("FLOPs aren't known of fast")
    assert started.startswith("more started from trained weights (some-bert)")
    assert all(f"- {note}" in page for note in content["notes"])


def test_scores_have_a_row_of_panels(folders, scores, tmp_path, drawn):  # noqa: F811
    assert main([*folders, "--scores", scores, "--target", "score=0.65", "--out", "out"]) == 0
    rows, content, page = written(tmp_path)
    assert [r["value"] for r in rows if r["measure"] == "score"] == ["0.6", "0.7"]
    assert [row["reached"] for row in content["targets"]] == [0, 0, 1]
    assert content["targets"][-1]["hours"]["mean"] == pytest.approx(4.5)
    assert "## Front: score" in page
    panels = drawn["pareto.png"].axes
    assert len(panels) == 6
    assert [axes.get_ylabel() for axes in panels[::3]] == ["evaluation loss, cross-entropy in nats", "score"]
    assert [axes.get_xlabel() for axes in panels[:3]] == [
        "hours of training",
        "tokens",
        "floating-point operations",
    ]


def test_the_plot_has_full_dots_on_a_runs_own_front_and_hollow_ones_elsewhere(folders, drawn):  # noqa: F811
    assert main([*folders[:1], "--out", "out"]) == 0
    hours = drawn["pareto.png"].axes[0]
    curve, best, beaten, step = hours.get_lines()
    assert points(curve) == [(4, 4), (8, 3), (12, 3.5)]
    assert points(best) == points(step) == [(4, 4), (8, 3)]
    assert points(beaten) == [(12, 3.5)]
    assert beaten.get_markerfacecolor() == "none"


def test_unknown_flops_leave_a_run_out_of_their_panel_or_the_panel_out(folders, drawn):  # noqa: F811
    assert main([*folders, "--out", "out"]) == 0
    of_flops = drawn["pareto.png"].axes[2]
    assert [len(points(line)) for line in of_flops.get_lines() if line.get_label().startswith("fast")] == [0]
    assert main([folders[2], "--out", "out"]) == 0
    assert len(drawn["pareto.png"].axes) == 2


def test_published_curves_are_apart(folders, tmp_path, drawn):  # noqa: F811
    assert main([*folders, "--published", "--out", "out"]) == 0
    own, apart = drawn["pareto.png"].axes[0], drawn["pareto.png"].axes[3]
    assert own.get_xlabel() == "hours of training"
    assert apart.get_xlabel() == "hours on 8 x A100-80GB"
    assert apart.get_legend().get_title().get_text() == "published, 8 x A100-80GB"
    assert (9.65, 0.843) in points(apart.get_lines()[0])
    _, content, page = written(tmp_path)
    assert content["published"]["hardware"] == "8 x A100-80GB"
    assert "## Published, 8 x A100-80GB" in page
    assert not any("published" in row for row in content["points"])


def test_without_the_option_nothing_is_published(folders, tmp_path, drawn):  # noqa: F811
    assert main([*folders, "--out", "out"]) == 0
    assert len(drawn["pareto.png"].axes) == 3
    assert "published" not in written(tmp_path)[1]


def test_the_command_that_scores_is_printed(folders, scores, capsys):
    assert main([*folders, "--out", "out"]) == 0
    command = capsys.readouterr().out.strip().splitlines()[-1]
    assert shlex.split(command)[2:4] == ["cadenza.studies.glue", "yamls/glue.yaml"]
    assert "ep0-ba3-rank0.pt" in command
    assert main([*folders, "--scores", scores, "--out", "out"]) == 0
    assert "cadenza.studies.glue" not in capsys.readouterr().out


def test_how_attention_was_computed_is_shown(tmp_path, capsys):
    made_runs.run(tmp_path / "a", {2: 3.0}, model__attention="eager")
    made_runs.run(tmp_path / "b", {2: 3.0}, algorithms__flash_attention__kernel="flex")
    assert main([str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "| a |  | 8 x A | eager | 2 |" in shown
    assert "| b |  | 8 x A | flash_attention, flex | 2 |" in shown


def test_any_name_is_in_the_legend_as_it_is(tmp_path, monkeypatch, drawn):  # noqa: F811
    """To matplotlib `_` hides a line, and `$` begins a formula."""
    monkeypatch.chdir(tmp_path)
    made_runs.run(tmp_path / "_base", {2: 3.0})
    made_runs.run(tmp_path / "a", {2: 3.0})
    assert main(["_base", "a", "--group", r"$\no$=a", "--out", "out"]) == 0
    (legend,) = drawn["pareto.png"].legends
    shown = [text.get_text().strip() for text in legend.get_texts()]
    assert shown == ["_base (8 x A)", r"\$\no\$ (8 x A)", "front"]
