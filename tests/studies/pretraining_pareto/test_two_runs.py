"""The study on two runs that were trained: the packaged recipes, at a tiny scale."""

import json

import pytest
from paths import ROOT

from cadenza.recipe import load, run
from cadenza.studies.pretraining_pareto.__main__ import main

TINY = (
    *(
        "train.max_duration=8ba",
        "train.eval_interval=2ba",
        "train.save_interval=4ba",
        "train.progress_bar=false",
    ),
    *(
        "model.config.hidden_size=32",
        "model.config.num_hidden_layers=1",
        "model.config.num_attention_heads=2",
    ),
    *("model.config.intermediate_size=64", "data.eval_fraction=0.01", "data.long_documents=truncate"),
)


def trained(folder, name, *overlays, more=()):
    """Train a packaged recipe; returns the run's folder."""
    files = [str(ROOT / f"yamls/{each}.yaml") for each in (name, "scale/cpu", *overlays)]
    path = run.train(load(files, [*TINY, f"train.run_folder={folder}", f"name={name}", *more]))
    return path.parent


@pytest.mark.slow
def test_runs_of_the_repository_from_training_to_the_plot(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CADENZA_CACHE", str(tmp_path / "cache"))
    bert = trained(tmp_path / "runs", "bert", "attention/eager")
    mosaicbert = trained(tmp_path / "runs", "mosaicbert")
    capsys.readouterr()
    assert main([str(bert), str(mosaicbert), "--target", "6.9", "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    content = json.loads((tmp_path / "out/pareto.json").read_text())
    records = [json.loads((folder / "run.json").read_text()) for folder in (bert, mosaicbert)]
    last = {p["run"]: p for p in content["points"] if p["batch"] == 8}
    for record, name in zip(records, ("bert", "mosaicbert"), strict=True):
        point = last[name]
        assert point["value"] == pytest.approx(record["eval"]["loss"], rel=1e-6)
        assert point["hours"] == pytest.approx(record["train"]["seconds"] / 3600, rel=1e-3)
        assert point["tokens"] == record["train"]["real_tokens"]
        assert point["flops"] == record["compute"]["flops"]
    assert len(content["points"]) == 2 * 4
    assert [row["line"] for row in content["targets"]] == ["bert", "mosaicbert"]
    assert "| bert |  | 1 x cpu | eager | 8 |" in shown
    assert "| mosaicbert |  | 1 x cpu | flash_attention, auto | 8 |" in shown
    assert str(bert / "checkpoints/ep0-ba8-rank0.pt") in shown.splitlines()[-1]
    assert (tmp_path / "out/pareto.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_run_that_was_interrupted_is_one_and_a_run_resumed_elsewhere_is_none(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CADENZA_CACHE", str(tmp_path / "cache"))
    first = trained(tmp_path / "runs", "bert", more=["train.max_duration=4ba"])
    resumed = trained(tmp_path / "runs", "bert", more=["train.autoresume=true"])
    assert first == resumed
    assert main([str(resumed), "--out", str(tmp_path / "out")]) == 0
    batches = [p["batch"] for p in json.loads((tmp_path / "out/pareto.json").read_text())["points"]]
    assert batches == [2, 4, 6, 8]
    start = f"train.load_path={resumed / 'checkpoints/ep0-ba4-rank0.pt'}"
    elsewhere = trained(tmp_path / "other", "bert", more=[start])
    capsys.readouterr()
    assert main([str(elsewhere), "--out", str(tmp_path / "out")]) == 2
    assert "its metrics begin at batch 5: it was resumed" in capsys.readouterr().err
