"""`cadenza prepare`: what it makes and prints, what a run then doesn't do again, and what it refuses."""

import json

import pytest

from cadenza.cli.main import main
from cadenza.data.text import finite
from cadenza.data.text.prepared import prepare
from cadenza.recipe import load
from cadenza.recipe.run import task_of

RECIPE = """
name: tiny
tokenizer: {vocab_size: 300}
data: {source: own.jsonl, max_seq_len: 32, eval_fraction: 0.2}
train: {global_batch_size: 4}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CADENZA_CACHE", str(tmp_path / "cache"))
    rows = [f"number {n} is {n % 7} more than {n % 5}" for n in range(60)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    return tmp_path


@pytest.mark.parametrize("objective", ["masked_lm", "causal_lm"])
def test_what_is_made_is_printed(folder, capsys, objective):
    assert main(["prepare", "tiny.yaml", f"model.objective={objective}"]) == 0
    train, held, made = capsys.readouterr().out.splitlines()
    counts = [int(line.split(": ")[1].split(" documents")[0]) for line in (train, held)]
    assert sum(counts) == 60
    assert train.startswith("to train on: ")
    assert held.startswith(f"to evaluate: {counts[1]} documents, {counts[1]} rows of ")
    assert held.endswith("% unknown to the tokenizer)")
    (kept,) = (path for path in (folder / "cache/prepared").iterdir() if path.is_dir())
    assert made.startswith(f"{kept}: 0.")


def test_other_texts_are_prepared_too(folder, capsys):
    (folder / "other.txt").write_text("number 5 is 5 more than 0")
    assert main(["prepare", "tiny.yaml", "data.other_eval={general: other.txt}"]) == 0
    _, _, other, *made = capsys.readouterr().out.splitlines()
    assert other.startswith("to evaluate, general: 1 documents, 1 rows of ")
    assert len(made) == 2


def test_a_run_then_reads_no_text(folder, monkeypatch):
    """Neither for the tokenizer nor for the rows."""
    assert main(["prepare", "tiny.yaml"]) == 0
    monkeypatch.setattr(finite, "documents_of", None)
    monkeypatch.setattr(prepare, "Encoder", None)
    train, evaluation = task_of(load(["tiny.yaml"], [])).data()
    assert len(train.dataloader.dataset) + len(evaluation.dataloader.dataset) == 60
    (folder / "own.jsonl").touch()
    with pytest.raises(TypeError):
        task_of(load(["tiny.yaml"], [])).data()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["name=x"], "prepare: no recipe: name a .yaml file or a packaged recipe"),
        (
            ["resnet50_bf16"],
            "prepare: model.objective is image_classification; this command prepares the text of",
        ),
        (["tiny.yaml", "data.source=none.jsonl"], "data.source: no file matches none.jsonl"),
        (
            ["tiny.yaml", "data.source=mds", "tokenizer.name=own"],
            "data.source: mds is a stream",
        ),
    ],
)
def test_what_is_refused(folder, capsys, arguments, said):
    if "tokenizer.name=own" in arguments:
        from cadenza.data import train_wordpiece

        train_wordpiece(["number"], 300).save_pretrained(folder / "own")
    assert main(["prepare", *arguments]) == 2
    assert said in capsys.readouterr().err
