"""A run that takes the positions of a pretrained decoder away: its folder, its export, its scores."""

import json

import pytest
import torch
from families import build

from cadenza.algorithms import apply_bf16_safe_rope
from cadenza.cli.main import main
from cadenza.data import train_wordpiece
from cadenza.models import load, save
from cadenza.recipe.continuing.surgeries import with_recorded

RECIPE = "name: tiny\ndata: {max_seq_len: 24, eval_fraction: 0.2}\n"
SHORT = [
    *("train.max_duration=2ba", "train.global_batch_size=8", "train.progress_bar=false"),
    *("train.eval_interval=1dur", "train.save_interval=1dur", "train.precision=fp32"),
    *("data.max_seq_len=32", "data.num_workers=0", "data.eval_documents=10", "data.eval_fraction=0.2"),
    "model.gradient_checkpointing=false",
]


def saved(folder):
    """A Llama with exact rotary positions and a tokenizer."""
    tokenizer = train_wordpiece(["number is more than and so on up to 0 1 2 3 4 5 6 7 8 9"] * 3, 300)
    model = build("llama", vocab_size=len(tokenizer))
    apply_bf16_safe_rope(model)
    save(model, folder, tokenizer)
    return f"model.pretrained={folder}"


def test_exact_rotary_positions_of_the_folder_are_left_out_aloud(recipe, tmp_path, capsys):
    pairs = saved(tmp_path / "model"), "model.objective=causal_lm", f"tokenizer.name={tmp_path / 'model'}"
    assert with_recorded(recipe(*pairs)).algorithms.keys() == {"bf16_safe_rope"}
    assert with_recorded(recipe(*pairs, "algorithms={drop_rope: {}}")).algorithms.keys() == {"drop_rope"}
    assert "bf16_safe_rope is left out, because drop_rope leaves nothing to rotate" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_run_its_score_and_its_export_have_no_positions(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    common = [*SHORT, f"data.source={text}", saved(tmp_path / "model")]
    assert main(["train", "drop_rope", *common]) == 0
    record = json.loads((tmp_path / "runs/drop-rope/run.json").read_text())
    assert list(record["surgeries"]) == ["DropRope(temperature=1.0)"]
    capsys.readouterr()
    assert main(["evaluate", "runs/drop-rope"]) == 0
    scored = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert scored["loss"] == pytest.approx(record["eval"]["loss"], rel=1e-5)
    assert main(["evaluate", "runs/drop-rope", "data.max_seq_len=64"]) == 0, "beyond the model's length"
    assert main(["export", "runs/drop-rope/checkpoints/latest-rank0.pt", "out"]) == 0
    model, ids = load("out"), torch.arange(12)[None]
    far = {"attention_mask": torch.ones_like(ids), "position_ids": 77 * ids}
    assert torch.equal(model(input_ids=ids).logits, model(input_ids=ids, **far).logits)
    again = [*common[:-1], "model.pretrained=out", "algorithms={}", "name=again"]
    assert main(["train", "drop_rope", *again]) == 0
    found = json.loads((tmp_path / "runs/again/run.json").read_text())["recipe"]["algorithms"]
    assert list(found) == ["drop_rope"], "the folder brings it"
