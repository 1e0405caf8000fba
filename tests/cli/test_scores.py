"""`cadenza evaluate` and `cadenza report` on a run: the run's own numbers, whatever names it."""

import json
import shutil

import pytest

from cadenza.cli.main import main

RECIPE = """
name: tiny
model: {config: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 4, intermediate_size: 48}}
tokenizer: {vocab_size: 300}
data: {max_seq_len: 32, eval_fraction: 0.2, num_workers: 0}
algorithms: {alibi: {}, unpadding: {}}
scheduler: {t_warmup: 0ba}
train: {max_duration: 4ba, global_batch_size: 8, save_interval: 2ba, precision: fp32, progress_bar: false}
"""


@pytest.fixture
def folder(text, tmp_path, monkeypatch, capsys):
    """The folder of a run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    assert main(["train", "tiny.yaml", f"data.source={text}"]) == 0
    capsys.readouterr()
    return tmp_path / "runs" / "tiny"


def scored(capsys, *arguments):
    """What `cadenza evaluate` prints as JSON."""
    assert main(["evaluate", *map(str, arguments)]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_run_its_checkpoint_and_its_model_score_what_the_run_recorded(folder, text, capsys):
    recorded = json.loads((folder / "run.json").read_text())["eval"]
    metrics = (folder / "metrics.jsonl").read_bytes()
    assert scored(capsys, folder) == pytest.approx(recorded)
    assert scored(capsys, folder / "checkpoints" / "latest-rank0.pt") == pytest.approx(recorded)
    earlier = scored(capsys, next(folder.glob("checkpoints/*-ba2-rank0.pt")))
    assert earlier["loss"] > recorded["loss"] + 1e-3
    assert main(["export", str(folder / "checkpoints" / "latest-rank0.pt"), "model"]) == 0
    capsys.readouterr()
    assert scored(capsys, "model", "tiny.yaml", f"data.source={text}") == pytest.approx(recorded, rel=1e-5)
    assert (folder / "metrics.jsonl").read_bytes() == metrics, "a score is no part of the run"


@pytest.mark.slow
def test_defaults_that_a_run_kept_are_no_slips(folder, capsys, recwarn):
    assert main(["evaluate", str(folder)]) == 0
    assert not [str(each.message) for each in recwarn if "has no effect" in str(each.message)]
    assert main(["evaluate", str(folder), "optimizer.momentum=0.5"]) == 0
    (slip,) = {str(each.message) for each in recwarn if "has no effect" in str(each.message)}
    assert slip.startswith("command line: optimizer.momentum has no effect")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_runs_side_by_side(folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "other")
    assert main(["report", str(folder), str(tmp_path / "other")]) == 0
    head, *rows, plot = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["run", "model", "batches"]
    assert len(rows) == 2
    assert all(row.split()[:3] == ["tiny", "bert", "4"] for row in rows)
    assert plot == "plot: report.png"
    assert (tmp_path / "report.png").stat().st_size > 10_000
    assert main(["report", str(folder)]) == 0
    assert (folder / "report.png").is_file()


def test_what_is_no_run(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "there is no metrics.jsonl in it; name the folder of a run" in capsys.readouterr().err
    (tmp_path / "config.json").write_text("{}")
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "is a model, not a run: name a recipe, whose data it is scored on" in capsys.readouterr().err
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").unlink()
    (tmp_path / "checkpoints" / "latest-rank0.pt").write_bytes(b"")
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "has no recipe.yaml: name a recipe, whose data it is scored on" in capsys.readouterr().err


def test_what_a_bug_report_needs(capsys):
    assert main(["env"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("python 3", "cadenza ", "torch ", "mosaicml 0.32.1", "CPU: ", "sdpa"))
