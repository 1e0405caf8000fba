"""The command line: exit codes, the one line of an error, --dry-run, --help, the composer launcher."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT
from patience import PATIENCE

from cadenza.data import hub

CPU = [str(ROOT / "yamls/mosaicbert.yaml"), str(ROOT / "yamls/scale/cpu.yaml")]
TINY = [
    "model.config.hidden_size=32",
    "model.config.intermediate_size=64",
    "model.config.num_hidden_layers=1",
    "train.max_duration=2ba",
    "train.global_batch_size=4",
    "data.eval_documents=4",
]


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setattr(hub, "reachable", lambda: False)
    monkeypatch.setitem(sys.modules, "streaming", None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: no recipe: name a .yaml file or a packaged recipe, such as mosaicbert"),
        (["sede=3"], "error: command line: unknown key sede; did you mean 'seed'?"),
        (["seed=x"], "error: command line: seed is 'x' (str); it must be an integer"),
        (["yamls/mosaicbret.yaml"], "there is no such file; did you mean 'yamls/mosaicbert.yaml'?"),
        (["data.source=c4"], "data set 'allenai/c4' can't be reached: the Hub doesn't answer"),
        (["data.source=no/*.jsonl"], "error: command line: data.source: no file matches no/*.jsonl"),
        (["data.source=mds"], "needs mosaicml-streaming; make install brings it"),
        (["tokenizer.name=bert-base-uncased"], "tokenizer.name: bert-base-uncased can't be loaded"),
        (
            ["model.pretrained=./nowhere"],
            "error: command line: model.pretrained: there is no folder ./nowhere",
        ),
        (["model.pretrained=bert-base-uncased"], "it isn't cached, and the Hub doesn't answer"),
        (["model.model_type=brt"], "model.model_type 'brt' is not a transformers model type"),
        (["model.config.hiden_size=8"], "model.config.hiden_size is not a field of BertConfig; nearest"),
        (
            ["model.config.hidden_size=30"],
            "The hidden size (30) is not a multiple of the number of attention",
        ),
        (["algorithms.alibbi={}"], "unknown technique algorithms.alibbi; did you mean 'alibi'?"),
        (
            ["algorithms.glu.variant=gelu"],
            "algorithms.glu.variant is 'gelu'; it must be geglu, swiglu or reglu",
        ),
        (["train.precision=amp_fp16"], "amp_fp16 can't run on a CPU; use amp_bf16, fp32 or auto"),
        (["loggers.tensorbord={}"], "did you mean 'tensorboard'?"),
    ],
)
def test_an_error_is_one_line_and_exit_code_two(main, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(ROOT)
    files = CPU if arguments else []
    assert main([*files, *TINY[: len(files) * 9], *arguments]) == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]


@pytest.mark.slow
def test_a_technique_that_does_not_fit_ends_before_training(main, capsys):
    arguments = ["model.model_type=albert", "algorithms.alibi=false", "algorithms.vocab_padding=false"]
    assert main([*CPU, *TINY, *arguments]) == 2
    assert "GLU(variant='geglu', intermediate_size=None) found nothing to change in AlbertForMaskedLM" in (
        capsys.readouterr().err
    )


@pytest.mark.slow
def test_dry_run_shows_recipe_edits_and_counts(main, capsys):
    assert main([*CPU, "--dry-run", *TINY]) == 0
    out = capsys.readouterr().out
    assert "hidden_size: 32" in out
    assert "weight_decay: 1.0e-05" in out
    assert "bert.encoder.layer.0.output: BertOutput -> DropoutFirstBertOutput" in out
    assert "parameters: " in out
    assert "after surgery" in out


@pytest.mark.slow
def test_the_launcher_trains_on_two_processes_and_passes_the_exit_code_on(tmp_path):
    composer = [str(Path(sys.executable).with_name("composer")), "-n", "2", "train.py", *CPU]

    def run(*arguments):
        return subprocess.run(
            [*composer, *TINY, f"train.run_folder={tmp_path}", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    done = run("name=two")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "two/run.json").read_text())
    assert record["device"]["world_size"] == 2
    assert record["train"]["batches"] == 2
    assert f"record: {tmp_path / 'two/run.json'}" in done.stdout
    assert "tok/s" in done.stderr, "there is a progress bar"
    wrong = run("train.global_batch_size=5")
    assert wrong.returncode == 2
    assert (
        "error: command line: train.global_batch_size is 5; it must be a multiple of the 2 devices"
        in wrong.stderr
    )
    assert "Traceback" not in wrong.stderr


def test_help_says_how(capsys, main):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "cadenza train mosaicbert scale/cpu" in capsys.readouterr().out
