"""From a trained model to another text: the packaged recipes lower its loss, and both losses are kept."""

import json

import pytest

from cadenza.cli.main import main

SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}
MODELS = {
    "continue": ["mosaicbert", "scale/cpu", f"model.config={SIZES}"],
    "continue_causal": ["long_context", "scale/cpu_decoder", f"model.config={SIZES}", "data.max_seq_len=64"],
}
SHORT = [
    *("train.global_batch_size=8", "train.progress_bar=false", "train.eval_interval=1dur"),
    *("train.save_interval=1dur", "data.max_seq_len=32", "train.device_train_microbatch_size=8"),
]


@pytest.fixture
def other(tmp_path):
    """A text of words that the first one has, in sentences of another kind."""
    path = tmp_path / "other.jsonl"
    rows = ({"text": " ".join([f"to {n % 5} up so than"] * (3 + n % 4))} for n in range(80))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_a_model_learns_another_text(name, text, other, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    base = [*MODELS[name], *SHORT, f"data.source={text}", "tokenizer.vocab_size=300", "name=base"]
    assert main(["train", *base, "train.max_duration=20ba"]) == 0
    assert main(["export", "runs/base/checkpoints/latest-rank0.pt", "model"]) == 0
    texts = [f"data.source={other}", f"data.other_eval.general={text}", "model.pretrained=model"]
    own = [name, "scale/cpu_continue", *SHORT, *texts, "name=own"]
    assert main(["train", *own, "train.max_duration=40ba", "optimizer.lr=0.01"]) == 0
    said = capsys.readouterr().out.splitlines()
    record = json.loads((tmp_path / "runs/own/run.json").read_text())
    losses = {
        key: [each[time]["loss"] for time in ("before", "after")] for key, each in record["texts"].items()
    }
    assert losses.keys() == {"own", "general"}
    assert losses["own"][1] < losses["own"][0] - 0.5
    for key, (before, after) in losses.items():
        assert f"{key}: {before:.3f} -> {after:.3f}" in said
    assert record["eval"]["loss"] == losses["own"][1]
    assert main(["evaluate", "runs/own"]) == 0
    scored = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert scored["loss"] == pytest.approx(losses["own"][1], rel=1e-4)
    assert scored["texts"]["general"]["loss"] == pytest.approx(losses["general"][1], rel=1e-4)
    assert main(["report", "runs/own"]) == 0
    assert main(["export", "runs/own/checkpoints/latest-rank0.pt", "further"]) == 0
    again = [*own[:-1], "model.pretrained=further", "name=again", "tokenizer.new_tokens=[tothan]"]
    assert main(["train", *again, "train.max_duration=1ba"]) == 0, "and once more, from there"
