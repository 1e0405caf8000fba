"""Means over tasks, lengths, seeds and checkpoints, with their spread, and the page that shows them."""

from dataclasses import replace

import pytest
from scipy.stats import t

from cadenza.studies.ruler import page
from cadenza.studies.ruler.cells import Cell
from cadenza.studies.ruler.scores import Scores
from cadenza.studies.ruler.settings import Ruler
from cadenza.studies.ruler.study import Found
from cadenza.studies.ruler.tasks.table import RULER


def rows(*cells):
    """`(model, checkpoint, task, length, seed, score)`; scores are text, as in a file."""
    return {Cell(*keys): {"score": str(score)} for *keys, score in cells}


ROWS = rows(
    ("full", "a", "vt", 1024, 0, 0.2),
    ("full", "a", "vt", 1024, 1, 0.4),
    ("full", "a", "cwe", 1024, 0, 0.5),
    ("full", "b", "vt", 1024, 0, 0.6),
    ("full", "b", "vt", 1024, 1, 0.6),
    ("full", "b", "cwe", 1024, 0, 0.9),
    ("anchor", "c", "vt", 1024, 0, 1.0),
    ("anchor", "c", "cwe", 1024, 0, 0.0),
    ("full", "a", "vt", 2048, 0, 0.1),
    ("full", "b", "vt", 2048, 0, 0.3),
    ("full", "a", "cwe", 2048, 0, 0.7),
    ("full", "b", "cwe", 2048, 0, 0.7),
    ("anchor", "c", "vt", 2048, 0, 0.5),
)


def test_means_are_over_seeds_then_tasks_then_lengths():
    scores = Scores(ROWS)
    assert scores.of_task("full", "vt", 1024) == pytest.approx((30 + 60) / 2)
    assert scores.at("full", 1024).mean == pytest.approx(((30 + 50) / 2 + (60 + 90) / 2) / 2)
    assert scores.at("anchor", 1024).mean == 50
    assert scores.overall("full").mean == pytest.approx(((40 + 10) / 2 + (75 + 30) / 2) / 2)


def test_a_mean_has_the_tasks_that_all_models_were_asked():
    scores = Scores(ROWS)
    assert scores.shared(1024) == ["vt", "cwe"]
    assert scores.shared(2048) == ["vt"], "one of them wasn't asked cwe"
    assert scores.at("full", 2048).mean == pytest.approx(20)
    assert scores.of_task("anchor", "cwe", 2048) is None
    alone = Scores(rows(("x", "a", "vt", 64, 0, 1), ("y", "b", "cwe", 64, 0, 1)))
    assert alone.at("x", 64) is alone.overall("x") is None


def test_the_spread_is_that_over_checkpoints():
    half = float(t.ppf(0.975, 1)) * abs(75 - 40) / 2  # deviation / sqrt(2) of two is half their distance
    found = Scores(ROWS).at("full", 1024)
    assert found.high - found.mean == pytest.approx(half)
    assert Scores(ROWS).at("anchor", 1024).low != Scores(ROWS).at("anchor", 1024).low, "NaN of one"


def test_the_page_has_one_table_over_all_models():
    cfg = Ruler(models={"full": ["a", "b"], "anchor": "c"}, seeds=[0, 1], examples=10)
    found = Found(ROWS, {"qa_1": "no file", "cwe at 2048": "too long"}, ["full: beyond"])
    text = page.text(cfg, Scores(ROWS), found)
    lines = text.splitlines()
    assert "20 examples of each task and length, float32" in lines[0]
    assert "don't compare with published RULER scores" in lines[0]
    half = float(t.ppf(0.975, 1)) * 35 / 2
    first = lines.index("| tokens | tasks | full (2 checkpoints) | anchor |")
    assert lines[first + 2] == f"| 1024 | 2 | 57.5 ± {half:.1f} | 50.0 |"
    assert lines[first + 3].startswith("| 2048 | 1 | 20.0 ± ")
    assert lines[first + 4].startswith("| **all** |  | 38.8 ± ")
    for line in (
        "- mean at 1024: vt, cwe",
        "- mean at 2048: vt",
        "- left out: qa_1 (no file)",
        "- left out: cwe at 2048 (too long)",
        "- full: beyond",
    ):
        assert line in lines
    at = lines.index("## anchor")
    assert lines[at + 2 : at + 6] == [
        *("| task | 1024 | 2048 |", "| --- | --- | --- |", "| vt | 100.0 | 50.0 |", "| cwe | 0.0 |  |"),
    ]


def test_all_thirteen_tasks_need_no_list():
    every = rows(*(("m", "a", task, 1024, 0, 0.5) for task in RULER))
    text = page.text(Ruler(models=["a"]), Scores(every), Found(every))
    assert "mean at" not in text
    assert "| 1024 | 13 | 50.0 |" in text
    few = {cell: row for cell, row in every.items() if cell.task != "vt"}
    assert "mean at 1024: niah_single_1" in page.text(Ruler(models=["a"]), Scores(few), Found(few))


def test_plots_and_page_are_written(tmp_path, capsys):
    figure = pytest.importorskip("matplotlib.figure")
    saved, usual = {}, figure.Figure.savefig
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            figure.Figure,
            "savefig",
            lambda self, path, **more: (saved.setdefault(path.name, self), usual(self, path, **more)),
        )
        cfg = replace(Ruler(models=["a"]), out=str(tmp_path))
        page.write(cfg, Found(ROWS))
    line = saved["ruler.png"].axes[0]
    assert [text.get_text() for text in line.get_legend().get_texts()] == ["full", "anchor"]
    heat = saved["ruler_tasks.png"].axes[:2]
    assert [axes.get_title() for axes in heat] == ["full", "anchor"]
    assert heat[1].images[0].get_array().tolist() == [[100.0, 50.0], [0.0, None]]
    assert [tick.get_text() for tick in heat[0].get_yticklabels()] == ["vt", "cwe"]
    assert (tmp_path / "ruler.md").read_text().strip() in capsys.readouterr().out
