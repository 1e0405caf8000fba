"""What every study leaves behind: tables, files and plots, cells that are done once, and its command line."""

import csv
import hashlib
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from drawn import LOOK, drawn, lines, look, scales  # noqa: F401

from cadenza.data import DataError
from cadenza.models import ModelError
from cadenza.recipe import RecipeError, TrainingError
from cadenza.studies import (
    compute_cost,
    context_cost,
    report,
    rope_precision,
)
from cadenza.studies.running import cells
from cadenza.surgery import SurgeryError

ROWS = [
    {"tokens": n, "seconds": n / 3 + extra, "mode": mode}
    for mode, extra in (("slow", 0), ("quick", 1))
    for n in (1, 2, 8)
]


STUDIES = compute_cost, context_cost, rope_precision


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
@pytest.mark.parametrize("study", STUDIES)
def test_what_a_study_says_of_itself(study, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["some", "--help"])
    with pytest.raises(SystemExit) as done:
        runpy.run_module(study.__name__, run_name="__main__")
    assert done.value.code == 0
    said = capsys.readouterr().out
    assert study.__doc__ in said
    if study in (compute_cost, context_cost, rope_precision):
        assert said.startswith(f"usage: python -m {study.__name__} ")


def test_every_command_line_names_a_folder(capsys):
    parser = report.parser("some_study", "A line.\n\n    as it is\n")
    assert parser.parse_args([]).out == Path("runs/studies")
    assert parser.parse_args(["--out", "there"]).out == Path("there")
    said = parser.format_help()
    assert said.startswith("usage: python -m cadenza.studies.some_study ")
    assert "A line.\n\n    as it is\n" in said


def test_tables_have_a_column_for_each_x():
    rows = [{"n": n, "e": n / 3, "mode": mode} for mode in "ab" for n in (1, 2)]
    table = report.markdown(rows[:-1], "n", "e", "mode").splitlines()
    assert table == ["| e by n | 1 | 2 |", "| --- | --- | --- |", "| a | 0.33 | 0.67 |", "| b | 0.33 |  |"]


def test_tables_keep_whole_numbers_and_text():
    rows = [{"n": 1, "e": 12345, "mode": "a"}, {"n": 2, "e": "none", "mode": "a"}]
    assert report.markdown(rows, "n", "e", "mode").splitlines()[2] == "| a | 12345 | none |"


def test_a_study_writes_its_rows_a_table_and_a_plot(tmp_path, drawn, capsys):  # noqa: F811
    folder = tmp_path / "not" / "there"
    for _ in range(2):
        report.write(folder, "some", ROWS, "tokens", "seconds", "mode")
    with (folder / "some.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{k: str(v) for k, v in row.items()} for row in ROWS]
    table = report.markdown(ROWS, "tokens", "seconds", "mode")
    assert (folder / "some.md").read_text() == f"{table}\n"
    assert capsys.readouterr().out == 2 * f"{table}\n\nwritten: {folder / 'some'}.csv, .md, .png\n"
    (axes,) = drawn["some.png"].axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("tokens", "seconds")
    assert lines(drawn["some.png"]) == {
        mode: [(row["tokens"], row["seconds"]) for row in ROWS if row["mode"] == mode]
        for mode in ("slow", "quick")
    }
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["slow", "quick"]
    assert {line.get_marker() for line in axes.get_lines()} == {"o"}
    assert look(drawn["some.png"]) == LOOK
    assert png_size(folder / "some.png") == (840, 540)


def test_no_window_is_opened(tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("svg")
    report.write(tmp_path, "one", ROWS[:1], "tokens", "seconds", "mode")
    assert matplotlib.get_backend().lower() == "agg"


def png_size(path):
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    return int.from_bytes(content[16:20]), int.from_bytes(content[20:24])


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ({}, ("log", "log")),
        ({"log": "x"}, ("log", "linear")),
        ({"log": "y"}, ("linear", "log")),
        ({"log": ""}, ("linear", "linear")),
    ],
)
def test_scales(log, expected, tmp_path, drawn):  # noqa: F811
    report.write(tmp_path, "some", ROWS, "tokens", "seconds", "mode", **log)
    assert scales(drawn["some.png"]) == expected
    if expected[0] == "log":
        assert drawn["some.png"].axes[0].xaxis.get_transform().base == 2


def test_a_row_that_was_cut_off_is_done_again(tmp_path):
    path = tmp_path / "a" / "b" / "cells.csv"
    rows = [{"name": "one", "value": 1}, {"name": "two", "value": 2}]
    text = [{key: str(value) for key, value in row.items()} for row in rows]
    assert cells.done(path) == []
    for each in rows:
        cells.append(path, each)
    assert cells.done(path) == text
    assert path.read_text().splitlines() == ["name,value", "one,1", "two,2"]
    for cut in (2, 3, 5):  # before the end of the line, in the second value, in the first
        path.write_bytes(path.read_bytes()[:-cut])
        assert text[0] in cells.done(path)
        cells.append(path, rows[1])
        assert [each for each in cells.done(path) if each == text[1]], cut
        assert all(set(each) == {"name", "value"} for each in cells.done(path))
    path.write_text("")
    cells.append(path, rows[0])
    assert cells.done(path) == text[:1]


def test_only_the_cut_row_is_lost(tmp_path):
    path = tmp_path / "cells.csv"
    path.write_bytes(b"name,value\r\none,1\r\ntw")
    assert cells.done(path) == [{"name": "one", "value": "1"}]
    cells.append(path, {"name": "two", "value": 2})
    assert path.read_bytes() == b"name,value\r\none,1\r\ntwo,2\r\n"


@dataclass
class Settings:
    """A study's."""

    files: list[str]
    seed: int = 1
    out: str = "here"


def test_a_fingerprint_is_the_hash_of_the_named_fields():
    """It stands in files that earlier versions wrote, whose cells are then done."""
    expected = hashlib.sha256(b'{"files": ["a.yaml"], "seed": 1}').hexdigest()[:12]
    assert cells.fingerprint(Settings(["a.yaml"]), ("seed", "files")) == expected


@pytest.mark.parametrize("arguments", [[], ["-h"], ["some.yaml", "--help"]])
def test_a_study_of_settings_says_what_it_takes(arguments, capsys):
    assert cells.command_line(arguments, Settings, "What it shows.", None) == 0
    assert capsys.readouterr().out == "What it shows.\nsettings: A study's.\n"


def test_settings_come_from_files_and_pairs(tmp_path):
    seen = []
    for name, text in (("one.yaml", "files: [a]\nseed: 2\n"), ("two.yml", "seed: 3\nout: there\n")):
        (tmp_path / name).write_text(text)
    arguments = [str(tmp_path / "one.yaml"), "out=a.yaml", str(tmp_path / "two.yml")]
    assert cells.command_line(arguments, Settings, None, seen.append) == 0
    assert seen == [Settings(["a"], 3, "a.yaml")]


@pytest.mark.parametrize("error", [RecipeError, DataError, ModelError, SurgeryError, TrainingError])
def test_what_is_wrong_is_one_line(error, capsys):
    def study(settings):
        raise error("what was wrong")

    assert cells.command_line(["files=[]"], Settings, None, study) == 2
    assert capsys.readouterr().err == "error: what was wrong\n"


def test_a_mistake_in_the_program_is_not_swallowed():
    def study(settings):
        raise KeyError("a")

    with pytest.raises(KeyError):
        cells.command_line(["files=[]"], Settings, None, study)
