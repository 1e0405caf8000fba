"""The study on labelled text: a case of its own, and what is none."""

import csv

import pytest
from paths import ROOT

from cadenza.studies.qat_pareto import __main__ as qat_pareto

TEXT = """
model:
  objective: text_classification
  config: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 32}
tokenizer: {vocab_size: 300}
data: {source: labelled.csv, max_seq_len: 16, eval_fraction: 0.25}
algorithms: {unpadding: {}}
optimizer: {lr: 0.01}
train: {global_batch_size: 8, max_duration: 6ep, precision: fp32}
"""


@pytest.mark.slow
def test_a_text_model_is_a_case(in_process, tmp_path, monkeypatch):
    """A tiny BERT that is trained on labelled sentences, quantized in training and after it."""
    monkeypatch.chdir(tmp_path)
    lines = [f"{'good' if n % 2 else 'bad'} {'so' * (n % 5 + 1)} film,{n % 2}" for n in range(120)]
    (tmp_path / "labelled.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    (tmp_path / "tiny.yaml").write_text(TEXT)
    arguments = ["recipe=[tiny.yaml]", "model_types=[]", "widths=[]", "calibrate_until=0.5dur"]
    arguments += ["bits=[none,w8a8,w2a2]", "post_training=[w8a8,w2a2]"]
    assert qat_pareto.main(arguments) == 0
    (folder,) = tmp_path.glob("runs/studies/qat_pareto")
    rows = [*csv.DictReader((folder / "qat_pareto.csv").read_text().splitlines())]
    assert [(r["bits"], r["trained"]) for r in rows] == [
        *(("none", "True"), ("w8a8", "True"), ("w2a2", "True"), ("w8a8", "False"), ("w2a2", "False"))
    ]
    loss = [float(r["loss"]) for r in rows]
    assert len(set(loss)) == 5, "each is quantized in its own way"
    assert float(rows[0]["accuracy"]) > 0.9, "it has learned something"
    ratio = [float(r["linear_ratio"]) for r in rows]
    assert ratio[0] == 1
    assert 0.49 < ratio[1] < 0.52
    assert all(r["train_accuracy"] == "" for r in rows)
    page = (folder / "qat_pareto.md").read_text()
    assert "| the recipe's | w8a8, after training | " in page
    assert "gap" not in page


def test_a_model_that_predicts_a_number_has_no_accuracy(tmp_path, capsys):
    arguments = [f"recipe=[{ROOT / 'yamls/finetune.yaml'}]", "model_types=[]", "widths=[]", f"out={tmp_path}"]
    assert qat_pareto.main([*arguments, "overrides=[data.target=number]"]) == 2
    assert "data.target is number; it must be class" in capsys.readouterr().err
    arguments[0] = f"recipe=[{ROOT / 'yamls/bert.yaml'}]"
    assert qat_pareto.main(arguments) == 2
    assert "model.objective is masked_lm; it must be image_classification or" in capsys.readouterr().err
