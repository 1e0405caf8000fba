"""`cadenza data`: what it prints of a recipe's text, and what it refuses."""

import json

import pytest

from cadenza.cli.main import main

RECIPE = """
name: tiny
model: {{objective: {objective}, model_type: {type}}}
tokenizer: {{name: {tokenizer}, vocab_size: 300}}
data: {{max_seq_len: 32, eval_fraction: 0.2}}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CADENZA_CACHE", str(tmp_path / "cache"))
    rows = [f"number {n} is {n % 7} more than {n % 5}" for n in range(60)] + ["the same"] * 4
    (tmp_path / "own.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    return tmp_path


def recipe(folder, objective="masked_lm"):
    parts = ("bert", "wordpiece") if objective == "masked_lm" else ("gpt2", "byte_bpe")
    content = RECIPE.format(objective=objective, type=parts[0], tokenizer=parts[1])
    (folder / "tiny.yaml").write_text(content)
    return ["data", "tiny.yaml", "data.source=own.jsonl", "data.eval_source=own.jsonl"]


def test_what_a_masked_lm_is_trained_on(folder, capsys):
    assert main(recipe(folder)) == 0
    said, tokens, rows, unknown, *shown, plot = capsys.readouterr().out.splitlines()
    assert said == "own.jsonl, for training: 64 documents; 3 (4.7%) repeat an earlier one (data.deduplicate)"
    assert tokens.startswith("tokens: ")
    assert rows.startswith("rows of 32 tokens: 64, ")
    assert rows.endswith("0.0% of the tokens are cut off (truncate)")
    assert unknown.startswith("unknown to the tokenizer: ")
    assert len(shown) == 3
    assert all(row.split(": ", 1)[1].startswith("[CLS]") and "<" in row for row in shown)
    assert plot == "plot: runs/tiny/data.png"
    assert (folder / "runs/tiny/data.png").is_file()


def test_what_a_causal_lm_is_trained_on(folder, capsys):
    assert main([*recipe(folder, "causal_lm"), "--documents", "10", "-o", "lengths.png"]) == 0
    said, _, rows, unknown, *shown, plot = capsys.readouterr().out.splitlines()
    assert said == "own.jsonl, for training: the first 10 documents"
    assert rows.endswith(", filled with one document after another")
    assert unknown == "unknown to the tokenizer: nothing"
    assert shown
    assert plot == "plot: lengths.png"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--documents", "5", "data.source=none.jsonl"], "no file matches none.jsonl"),
        (["--documents", "0"], "data: --documents is 0; it must be above zero"),
        (["model.objective=image_classification", "model.model_type=resnet10"], "for images"),
        (["data.source=none.jsonl"], "no file matches none.jsonl"),
    ],
)
def test_what_it_refuses(arguments, message, folder, capsys):
    command = recipe(folder)[:2] if "model" in arguments[0] else recipe(folder)
    if "model" in arguments[0]:
        (folder / "tiny.yaml").write_text("name: tiny\n")
    assert main([*command, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_pairs_alone_are_no_recipe(capsys):
    assert main(["data", "data.source=own.jsonl"]) == 2
    assert "data: no recipe: name a .yaml file" in capsys.readouterr().err
