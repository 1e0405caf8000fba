"""Labelled text that a small model learns in seconds: the class is that of one word."""

import csv

import pytest
import torch
from families import build

from cadenza.data import train_wordpiece
from cadenza.recipe import load

COLOURS = ("red", "green", "blue")
RECIPE = """
name: tiny
model: {objective: text_classification, config: {hidden_dropout_prob: 0.0, attention_probs_dropout_prob: 0.0}}
data: {max_seq_len: 16, eval_fraction: 0.2}
optimizer: {lr: 0.01}
scheduler: {t_warmup: 0ba, alpha_f: 0.0}
train: {max_duration: 80ba, global_batch_size: 16, eval_interval: 1dur, progress_bar: false, precision: fp32}
"""


def sentence(number):
    return " ".join(["the"] + ["very"] * (number % 5) + [COLOURS[number % 3], "house", "of", str(number)])


@pytest.fixture
def colours(tmp_path, monkeypatch):
    """120 sentences of three classes; other columns hold a number, a second text, and the class of that."""
    monkeypatch.setenv("CADENZA_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "colours.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "number", "second", "size"])
        for n in range(120):
            size = "small" if n % 2 else "large"
            writer.writerow([sentence(n), COLOURS[n % 3], n % 3 - 1.0, f"a {size} one", size])
    return path


@pytest.fixture
def encoder(tmp_path):
    """The folder of a masked LM with a tokenizer."""
    tokenizer = train_wordpiece([sentence(n) + " a small one a large one" for n in range(120)], 100)
    torch.manual_seed(0)
    model = build("bert", vocab_size=len(tokenizer))
    model.save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


@pytest.fixture
def tuning(colours, encoder, tmp_path):
    """The recipe, over `colours` and from `encoder`, with everything it writes under tmp_path."""
    file = tmp_path / "tiny.yaml"
    file.write_text(RECIPE)
    common = [f"data.source={colours}", f"train.run_folder={tmp_path / 'runs'}"]
    common += [f"model.pretrained={encoder}", f"tokenizer.name={encoder}"]
    return lambda *overrides: load([str(file)], common + list(overrides))
