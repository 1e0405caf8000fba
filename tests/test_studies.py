"""The studies: what they compute is right, and they run from the command line."""

import csv
import math
import random
import re
import subprocess
import sys

import pytest
import torch
from families import build

from cadenza.studies import context_cost, report, retrieval, rope_precision


@pytest.mark.parametrize("name", ["rope_precision", "context_cost", "retrieval"])
@pytest.mark.slow
def test_help(name):
    run = subprocess.run(
        [sys.executable, "-m", f"cadenza.studies.{name}", "--help"], capture_output=True, text=True
    )
    assert run.returncode == 0
    assert "--out" in run.stdout


def test_rounded_frequencies_ruin_scores_and_exact_ones_do_not():
    """Figures of an independent run at head width 128 and theta 10,000, to a tenth: other draws."""
    rows = rope_precision.errors(1e4, pairs=4000)
    error = {(r["mode"], r["position"]): r["relative error"] for r in rows if r["kind"] == "error"}
    shift = {(r["mode"], r["position"]): r["relative error"] for r in rows if r["kind"] == "shift"}
    expected = {
        ("stock, bfloat16", 4096): 3.9e-3,
        ("inv_freq rounded", 512): 7.1e-2,
        ("inv_freq rounded", 131_071): 0.99,
        ("bf16_safe_rope", 131_071): 2.4e-3,
        ("bf16_safe_rope", 1_048_575): 2.4e-3,
        ("all float32", 131_071): 5.8e-4,
    }
    for case, value in expected.items():
        assert error[case] == pytest.approx(value, rel=0.1), case
    assert shift["inv_freq rounded", 4096] == pytest.approx(5.4e-3, rel=0.1), "the shift can't see it"


def test_the_discrepancy_has_two_readings():
    first = [torch.tensor([[[[1.0, 0.0], [0.5, 0.5]]]])]
    second = [torch.tensor([[[[1.0, 0.0], [0.25, 0.75]]]])]
    assert rope_precision.discrepancy(first, second) == (0.25 / 2 + 0.25, 0.25 / 2 + 0.25)
    second = [torch.tensor([[[[0.75, 0.25], [0.75, 0.25]]]])]
    assert rope_precision.discrepancy(first, second) == (0.5 / 2 + 0.5, 0.0)


@pytest.mark.slow
def test_a_model_s_discrepancy_is_small_in_float32(tmp_path, monkeypatch):
    model = build("llama")
    model.save_pretrained(tmp_path)
    ids = torch.randint(3, 90, (1, 20), generator=torch.Generator().manual_seed(0))

    class Tokenizer:
        def __call__(self, text, return_tensors):
            return {"input_ids": ids}

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda folder: Tokenizer())
    rows = rope_precision.of_model(str(tmp_path), "text", 16, [16])
    found = {row["mode"]: row["D, inside"] for row in rows}
    assert 0 < 10 * found["float32"] < found["bfloat16"]
    with pytest.raises(SystemExit, match="20 tokens; --tokens asks for 99"):
        rope_precision.of_model(str(tmp_path), "text", 99, [16])


@pytest.mark.parametrize(("window", "document"), [(2, 1), (9, 4), (10, 4), (16, 100)])
def test_pairs_are_those_of_the_mask(window, document):
    ids = torch.cat([torch.full((n,), i) for i, n in enumerate(context_cost.lengths_of(window, document))])
    assert len(ids) == window
    causal = torch.ones(window, window, dtype=torch.bool).tril()
    own = ids[:, None] == ids
    for mode, mask in {
        "full": causal,
        "intra_document": causal & own,
        "anchor": causal & (own | (ids == 0)),
    }.items():
        assert context_cost.pairs(mode, window, document) == mask.sum()


def test_operations_are_those_of_the_paper_s_sizes():
    """At 131,072 tokens of documents of 1,024 a 7B model's step is about 3.6 times cheaper."""
    full, anchor = (context_cost.operations(m, 131_072, 1024, 4096, 32) for m in ("full", "anchor"))
    assert full / anchor == pytest.approx(3.58, rel=0.03)


@pytest.mark.slow
def test_context_cost_from_the_command_line(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    sizes = {"windows": "32 64", "documents": "16", "hidden": "16", "heads": "2", "rounds": "1"}
    options = [part for name, values in sizes.items() for part in (f"--{name}", *values.split())]
    monkeypatch.setattr(sys, "argv", ["context_cost", *options, "--out", str(tmp_path)])
    context_cost.main()
    with (tmp_path / "context_cost.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert all(float(row["seconds"]) > 0 and float(row["kept MiB"]) > 0 for row in rows)
    for end in ("md", "png"):
        assert (tmp_path / f"context_memory.{end}").stat().st_size > 0
    assert "anchor, 16" in capsys.readouterr().out


class Characters:
    """A tokenizer of one token a character."""

    bos_token_id, eos_token_id = 1, 2

    def __call__(self, text, **_):
        return (
            {"input_ids": torch.tensor([[3 + ord(c) % 80 for c in text]])} if _ else {"input_ids": list(text)}
        )

    def decode(self, ids, skip_special_tokens):
        return "x" * len(ids)


@pytest.mark.parametrize("task", retrieval.TASKS)
def test_tasks_fit_their_length_and_hold_their_answer(task):
    for seed in range(3):
        example = retrieval.fitted(task, 12_000, Characters(), seed)
        assert 12_000 * 0.7 < len(example.prompt) + example.answer_tokens < 12_000
        assert all(each in example.prompt for each in example.expected)
        assert example == retrieval.fitted(task, 12_000, Characters(), seed)
        assert retrieval.score(" ".join(example.expected), example.expected) == 1.0
        assert retrieval.score("", example.expected) == 0.0
    with pytest.raises(ValueError, match="doesn't fit 40 tokens"):
        retrieval.fitted(task, 40, Characters(), 0)


def test_a_chain_s_variables_all_hold_the_value():
    example = retrieval.variable_tracking(random.Random(0), 9)
    value = re.search(r"assigned the value (\d+)", example.prompt)[1]
    held = {}
    for name, source in re.findall(r"VAR (\w+) = (?:VAR )?(\w+)", example.prompt):
        held[name] = held.get(source, source)
    assert set(example.expected) == {name for name, v in held.items() if v == value}


def test_frequent_words_are_the_most_frequent():
    for make, most in ((retrieval.common_words, 10), (retrieval.frequent_words, 3)):
        example = make(random.Random(0), 300)
        words = re.findall(r"\d+\. (\w+)", example.prompt)
        ranked = sorted(set(words), key=words.count, reverse=True)
        assert set(ranked[:most]) == set(example.expected)


def test_scores_of_a_model(capsys):
    model = build("llama", max_position_embeddings=4096)
    rows = retrieval.evaluate(model, Characters(), ["key_value", "cwe"], [600], 1)
    assert [row["task"] for row in rows] == ["key_value"], "ten words 30 times don't fit 600 characters"
    assert rows[0]["score"] == 0.0


def test_tables_have_a_column_for_each_x():
    rows = [{"n": n, "e": n / 3, "mode": mode} for mode in "ab" for n in (1, 2)]
    table = report.markdown(rows[:-1], "n", "e", "mode").splitlines()
    assert table[0] == "| e by n | 1 | 2 |"
    assert table[2:] == ["| a | 0.33 | 0.67 |", "| b | 0.33 |  |"]
    assert math.isclose(rows[0]["e"], 1 / 3)
