"""`cadenza data` of labelled text: what is counted is what is there."""

import csv

import pytest

from cadenza.cli.main import main
from cadenza.data import train_wordpiece

TEXTS = [(f"{'very ' * (n % 4)}good {n}", "yes" if n % 3 else "no", n / 10) for n in range(60)]


@pytest.fixture
def pairs(tmp_path, monkeypatch):
    monkeypatch.setenv("CADENZA_CACHE", str(tmp_path / "cache"))
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label", "number"), *TEXTS])
    train_wordpiece([f"{text} {label}" for text, label, _ in TEXTS], 90).save_pretrained(tmp_path / "words")
    return [
        *("finetune", f"data.source={tmp_path / 'a.csv'}", f"tokenizer.name={tmp_path / 'words'}"),
        *("model.pretrained=null", f"train.run_folder={tmp_path}", "data.eval_fraction=0.2"),
    ]


def test_the_classes_and_the_lengths(pairs, tmp_path, capsys):
    assert main(["data", *pairs]) == 0
    said = capsys.readouterr().out
    assert "for training: 48 examples (yes 32, no 16)" in said
    assert "for evaluation: 12 examples (yes 8, no 4)" in said
    assert "unknown to the tokenizer: 0.00% of the tokens" in said
    assert said.count("example ") == 3
    assert "[CLS] good" in said
    assert (tmp_path / "finetune/data.png").stat().st_size > 5000


def test_numbers_and_pairs(pairs, capsys):
    numbers = ["data.target=number", "data.label_field=number", "data.pair_field=label"]
    assert main(["data", *pairs, *numbers]) == 0
    said = capsys.readouterr().out
    assert "for training: 48 examples, labels from 0" in said
    assert "for evaluation: 12 examples, labels from " in said
    assert "[SEP] no [SEP]" in said, "the second text of the first example"


def test_documents_are_of_text_without_labels(pairs, capsys):
    assert main(["data", *pairs, "--documents", "5"]) == 2
    assert "--documents is for text without labels; name data.train_examples" in capsys.readouterr().err
