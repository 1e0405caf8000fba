"""The study from models to files: resumed by cell, one table for several models, refused before it begins."""

import csv
import json
import os
import re

import pytest
from families import build
from filelock import FileLock

from cadenza.algorithms import apply_alibi
from cadenza.data import train_byte_bpe
from cadenza.models import save
from cadenza.recipe import load_settings
from cadenza.studies.ruler import study
from cadenza.studies.ruler.__main__ import main
from cadenza.studies.ruler.settings import Ruler

TEXT = "\n".join(f"some plain words of a text that has number {n}." for n in range(200))


@pytest.fixture(scope="module")
def words():
    return train_byte_bpe([TEXT], 300)


@pytest.fixture
def made(tmp_path, words):
    """A folder of a small model; and the command with a short study of two tasks on it."""
    pytest.importorskip("scipy")
    (tmp_path / "text.txt").write_text(TEXT)

    def folder(name, seed=0, change=None, **config):
        model = build("llama", seed=seed, vocab_size=len(words), max_position_embeddings=4096, **config)
        if change:
            change(model)
        return save(model, tmp_path / name, words)

    return folder


@pytest.fixture
def short(tmp_path):
    """Settings of a short study."""
    prose, out = f"prose={tmp_path / 'text.txt'}", f"out={tmp_path / 'out'}"
    return ["tasks=[key_value,qa_1]", "lengths=[120]", "examples=2", prose, out]


@pytest.fixture
def run(short):
    """The command."""
    return lambda *pairs: main([*short, *pairs])


@pytest.fixture
def found(short):
    """What the study finds; without page and plots."""
    return lambda *pairs: study.run(load_settings(Ruler, [], [*short, *pairs]))


@pytest.fixture
def scored(monkeypatch):
    """The cells that are answered while the test runs, by model, task, length and seed."""
    found, usual = [], study._scored

    def _scored(cfg, job, model, cell):
        found.append((cell.model, cell.task, cell.length, cell.seed))
        return usual(cfg, job, model, cell)

    monkeypatch.setattr(study, "_scored", _scored)
    return found


def rows(tmp_path):
    with (tmp_path / "out/ruler.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_study_writes_one_table_of_all_models(made, run, tmp_path, capsys):
    assert run(f"models={{one: [{made('first')}, {made('second', seed=1)}]}}") == 0
    out = capsys.readouterr().out
    assert "| tokens | tasks | one (2 checkpoints) |" in out
    assert "left out: qa_1 (there is no file of questions; name one by qa_1)" in out
    answers = [json.loads(line) for line in (tmp_path / "out/answers.jsonl").read_text().splitlines()]
    assert len(answers) == 4
    assert all(len(each["expected"]) == 1 for each in answers)
    assert {path.name for path in (tmp_path / "out").glob("ruler*")} == {
        *("ruler.csv", "ruler.md", "ruler.png", "ruler_tasks.png")
    }


def test_a_cell_is_done_once_while_nothing_changes(made, found, scored, tmp_path):
    folder = made("first")
    for pairs, cells in (
        ([], [(120, 0)]),
        ([], []),
        (["lengths=[120,140]", "seeds=[0,7]"], [(120, 7), (140, 0), (140, 7)]),
        (["batch_size=1"], []),
        (["examples=3"], [(120, 0)]),
    ):
        scored.clear()
        assert found(f"models=[{folder}]", *pairs).rows
        assert [cell[2:] for cell in scored] == cells, pairs
    assert len(rows(tmp_path)) == 5


def test_other_weights_are_scored_anew(made, found, scored):
    folder = made("first")
    for name in ("model.safetensors", "config.json"):
        found(f"models=[{folder}]")
        scored.clear()
        os.utime(folder / name, ns=(1, 1))
        found(f"models=[{folder}]")
        assert len(scored) == 1, name


def test_an_incomplete_row_is_done_again(made, found, scored, tmp_path):
    models = f"models=[{made('first')}]"
    found(models, "seeds=[0,1]")
    file = tmp_path / "out/ruler.csv"
    file.write_text(file.read_text()[:-5])
    scored.clear()
    found(models, "seeds=[0,1]")
    assert scored == [("first", "key_value", 120, 1)]
    assert len(rows(tmp_path)) == 2


def test_models_with_the_same_tokenizer_share_their_examples(made, found, monkeypatch):
    made_for, usual = [], study.Examples.fitted
    monkeypatch.setattr(
        study.Examples, "fitted", lambda self, *key: (made_for.append(key), usual(self, *key))[1]
    )
    found(f"models=[{made('first')},{made('second')}]")
    assert len(made_for) == 2


def test_a_model_after_surgery_is_loaded_by_our_loader(made, found):
    folder, other = made("stock"), made("changed", change=apply_alibi)
    assert json.loads((other / "config.json").read_text())["model_type"] == "cadenza"
    assert {cell.model for cell in found(f"models=[{folder},{other}]").rows} == {"stock", "changed"}


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["models={a: ./none}"], "models.a: there is no ./none"),
        (["models={a: TMP/empty}"], "models.a: TMP/empty holds neither weights nor a run's checkpoints"),
        (["models={a: TMP/run}"], "models.a: .*TMP/run"),
        (["models={a: TMP/bert}"], "models.a: TMP/bert attends in both directions; a causal model is needed"),
        (["models={a: TMP/gpt2}"], "models.a: TMP/gpt2 has 32 positions; 120 are asked for"),
        (["models={a: TMP/llama}", "tasks=[qa_2]"], "tasks: qa_2 need files of questions"),
        (["models={a: TMP/llama}", "lengths=[40]"], "lengths: no task fits them; key_value takes"),
        (["models={a: TMP/llama}", "qa_1=TMP/none.json"], "qa_1: TMP/none.json can't be read"),
        (["models={a: TMP/llama}", "prose=TMP/none.txt"], "prose: .*none.txt"),
    ],
)
def test_what_can_t_be_scored_is_refused_before_anything_runs(
    pairs, message, made, run, words, tmp_path, scored, capsys
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/recipe.yaml").write_text("")
    for family in ("bert", "gpt2"):
        if any(family in pair for pair in pairs):
            save(build(family, vocab_size=len(words)), tmp_path / family, words)
    if any("llama" in pair for pair in pairs):
        made("llama")
    assert run(*(pair.replace("TMP", str(tmp_path)) for pair in pairs)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.match("error: " + message.replace("TMP", str(tmp_path)), error), error
    assert scored == []


def test_lengths_beyond_the_config_s_positions_are_said(made, found):
    folder = made("short")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 100}))
    note = "short: its config states 100 positions; 120 tokens are beyond"
    assert found(f"models=[{folder}]").notes == [note]


def test_help_names_the_settings(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert "lengths: Tokens of the prompt with its answer." in out
    assert "python -m cadenza.studies.ruler" in out


def test_a_folder_takes_one_study_at_a_time(made, run, tmp_path, capsys):
    folder = made("first")
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out/.lock"):
        assert run(f"models=[{folder}]") == 2
    assert "out: another study runs in" in capsys.readouterr().err
