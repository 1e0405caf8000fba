"""The sweep over formats: its measures against plain computations, its cells on a tiny model, resumed."""

import csv
import math

import pytest
import torch
from families import build

from cadenza.recipe import RecipeError, load_settings
from cadenza.studies import ptq_findings, ptq_metrics, ptq_sweep


def test_kl_and_overlap():
    theirs, ours = torch.randn(2, 5, 40, generator=torch.Generator().manual_seed(0)).double()
    p, q = (theirs / 0.7).softmax(-1), (ours / 0.7).softmax(-1)
    assert ptq_metrics.kl(theirs, ours, 0.7) == pytest.approx(float((p * (p / q).log()).sum(-1).mean()))
    assert ptq_metrics.kl(theirs, theirs, 0.7) == 0
    common = [
        len({*a.topk(7).indices.tolist()} & {*b.topk(7).indices.tolist()}) / 7
        for a, b in zip(theirs, ours, strict=True)
    ]
    assert ptq_metrics.overlap(theirs, ours, 7) == pytest.approx(sum(common) / 5)


def test_distinct():
    assert ptq_metrics.distinct([1, 2, 1, 2, 1], 2) == 2 / 4
    assert ptq_metrics.distinct([1, 2, 3, 4], 4) == 1


def test_text_measures_equal_the_models_own_loss():
    model = build("llama")
    ids = torch.randint(3, 90, (3, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        loss = model(input_ids=ids, labels=ids).loss.item()
        found = ptq_metrics.on_text(model, model, ids, [0.5, 1.0], [5])
        made = ptq_metrics.of_text(model, ids[:, :5], ids[:, 5:])
        logits = model(input_ids=ids).logits[:, 4:-1].log_softmax(-1)
    assert found["nll"] == pytest.approx(loss, rel=1e-6)
    assert found["kl"] == {0.5: 0, 1.0: 0}
    assert found["overlap"] == {5: 1}
    expected = -logits.gather(-1, ids[:, 5:, None]).mean().item()
    assert made["generated_nll"] == pytest.approx(expected, rel=1e-5)


@pytest.fixture
def settings(tmp_path):
    """A tiny model with a tokenizer, in a folder, and a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate(["[UNK]", "</s>", *(f"w{i}" for i in range(88))])}
    plain = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="</s>").save_pretrained(tmp_path / "tiny")
    build("llama", initializer_range=0.2).save_pretrained(tmp_path / "tiny")
    (tmp_path / "text.txt").write_text(" ".join(f"w{(7 * i * i + i) % 88}" for i in range(400)))
    pairs = [
        "temperatures=[0.5,1.0]",
        "top_k=[5]",
        "max_new_tokens=[6]",
        "windows=2",
        "window=16",
        "prompt=4",
    ]
    pairs += [f"models=[{tmp_path / 'tiny'}]", f"text={tmp_path / 'text.txt'}", f"out={tmp_path / 'out'}"]
    return [*pairs, "dtype=float32"]


def rows_of(folder):
    with (folder / "out" / "ptq_sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_cells_are_resumed_and_reported(settings, tmp_path, capsys):
    pytest.importorskip("bitsandbytes", reason="NOT VERIFIED HERE: needs bitsandbytes")
    assert ptq_sweep.main([*settings, "formats=[none,nf4]"]) == 0
    first = rows_of(tmp_path)
    assert len(first) == 4
    assert {float(row["kl"]) for row in first if row["format"] == "none"} == {0}
    assert all(float(row["kl"]) > 1e-4 for row in first if row["format"] == "nf4")
    assert ptq_sweep.main(settings) == 0
    rows = rows_of(tmp_path)
    assert rows[:4] == first, "cells that were done are kept"
    assert len(rows) == 12
    by_format = {row["format"]: row for row in rows}
    assert float(by_format["int8"]["kl"]) < float(by_format["nf4"]["kl"])
    assert float(by_format["nf4-dq"]["weight_bytes"]) < float(by_format["nf4"]["weight_bytes"])
    assert all(math.isfinite(float(row["generated_nll"])) for row in rows)
    page = (tmp_path / "out" / "ptq_sweep.md").read_text()
    assert "- nf4 = fp4: " in page
    assert "- int8 is the slowest: " in page
    assert (tmp_path / "out" / "ptq_error_tiny.png").stat().st_size > 1000
    assert ptq_sweep.main([*settings, "seed=3", "formats=[none]"]) == 0
    assert len(rows_of(tmp_path)) == 14, "other settings are other cells"


def test_findings_can_be_refuted():
    row = {"temperature": 0.5, "kl": 1.0, "decode_tokens_per_second": 2.0}
    formats = {"none": 1.0, "nf4": 4.0, "fp4": 4.0, "int8": 9.0}
    rows = [
        {**row, "format": name, "temperature": heat, "kl": 1 / heat, "decode_tokens_per_second": speed}
        for name, speed in formats.items()
        for heat in (0.2, 0.5, 1.0)
    ]
    said = ptq_findings.findings(rows)
    assert "holds here." in said[0]
    assert all("doesn't hold here." in line for line in said[1:])


def test_bad_settings(settings, capsys):
    assert ptq_sweep.main([*settings, "formats=[nf5]"]) == 2
    assert "'nf5' is not one of none, nf4" in capsys.readouterr().err
    assert ptq_sweep.main([*settings, "temprature=3"]) == 2
    assert "unknown key temprature; did you mean 'temperatures'?" in capsys.readouterr().err
    assert ptq_sweep.main(["--help"]) == 0
    assert "models" in capsys.readouterr().out


def test_recipes_are_settings():
    load_settings(ptq_sweep.Sweep, ["yamls/ptq_sweep.yaml"], [])
    with pytest.raises(RecipeError):
        load_settings(ptq_sweep.Sweep, ["yamls/qlora.yaml"], [])
