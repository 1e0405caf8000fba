"""The command line of the study of rotary positions, from its options to its reports."""

import csv
import sys

import pytest
import torch
from families import build

from cadenza.studies import report
from cadenza.studies.rope_precision import __main__ as command
from cadenza.studies.rope_precision import loading

ERRORS = {"position": 1, "relative error": 0.1, "mode": "some"}


class Characters:
    """A tokenizer of one token a character."""

    bos_token_id = None

    def __call__(self, text, add_special_tokens):
        assert not add_special_tokens
        return {"input_ids": [3 + ord(letter) % 80 for letter in text]}


@pytest.fixture
def run(monkeypatch):
    """Run the command line; errors of random vectors aren't computed: what was asked of them."""
    asked = []

    def errors(theta, pairs):
        asked.append((theta, pairs))
        return [{"kind": kind, "theta": theta, **ERRORS} for kind in ("shift", "error")]

    def run(*options):
        monkeypatch.setattr(command, "errors", errors)
        monkeypatch.setattr(command, "causal", lambda folder, length: Characters())
        monkeypatch.setattr(sys, "argv", ["rope_precision", *map(str, options)])
        return command.main(), asked

    return run


@pytest.fixture
def given(tmp_path):
    build("llama", initializer_range=0.3).save_pretrained(tmp_path / "model")
    (tmp_path / "a.txt").write_text("some text " * 30)
    place = ["--model", tmp_path / "model", "--text", tmp_path / "a.txt", "--theta", 100]
    return [*place, "--out", tmp_path / "out", "--device", "cpu"]


def test_the_defaults_need_no_model(run, monkeypatch):
    written = []
    monkeypatch.setattr(report, "write", lambda *given: written.append(given))
    assert run("--out", "there") == (0, [(1e4, 20_000), (5e5, 20_000)])
    shown = "position", "relative error", "mode"
    assert [(str(folder), name, *axes) for folder, name, _, *axes in written] == [
        ("there", f"rope_{kind}_theta_{name}", *shown)
        for kind in ("error", "shift")
        for name in ("1e04", "5e05")
    ]
    assert [row["theta"] for _, _, rows, *_ in written for row in rows] == [1e4, 5e5, 1e4, 5e5]


def test_d_of_a_model_is_written_with_its_plots(run, given, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert run(*given, "--tokens", 12, "--texts", 2, "--shifts", 0, 16, 1000)[0] == 0
    with (tmp_path / "out" / "rope_D.csv").open() as file:
        rows = list(csv.DictReader(file))
    modes = ("float32", "bfloat16", "bf16_safe_rope")
    assert [(row["mode"], row["shift"]) for row in rows] == [
        (m, s) for m in modes for s in ("0", "16", "1000")
    ]
    for row in rows:
        assert (row["against"], row["texts"]) == ("0", "2")
        assert (float(row["D, inside"]) > 0) == (row["shift"] != "0"), "no shift, no difference"
    names = {path.name for path in (tmp_path / "out").iterdir() if "rope_D" in path.name}
    parts = {f"rope_D_{name}.png" for name in ("inside", "outside", "keys", "scores")}
    assert names == parts | {
        "rope_D_12_cells.csv",
        "rope_D.csv",
        "rope_D.md",
        "rope_D_keys.csv",
        "rope_D_scores.csv",
    }
    said = capsys.readouterr().out
    assert said.index("MB beside the weights, 3 shifts at once") < said.index(
        "| D, inside by shift | 0 | 16 | 1000 |"
    )


def test_the_paper_s_shifts_are_against_16(run, given, monkeypatch):
    plans = []
    monkeypatch.setattr(command, "_measure", lambda plan, chosen: plans.append(plan))
    run(*given, "--paper", "--tokens", 9, "--modes", "random_bfloat16")
    run(*given)
    run(*given, "--paper", "--against", 3)
    assert [plan.against for plan in plans] == [16, 0, 3]
    assert plans[0].shifts == command.PAPER
    assert 16 not in command.PAPER
    assert plans[1].shifts == (16, 100_000)
    assert plans[0].at_once == {"random_bfloat16": 19}
    assert [plan.ids.shape for plan in plans[:2]] == [(1, 9), (1, 128)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "cuda:77"], "--device is cuda:77; there are cpu"),
        (["--texts", "100"], "a.txt holds 2 texts of 128 tokens; --texts asks for 100"),
        (["--memory", "1e-6"], "--memory is 1e-06 GB; one shift of 128 tokens needs"),
        (["--memory", "0"], "--memory is 0; it must lie in (0, 1e6]"),
        (["--shifts", "-1"], "--shifts is -1; it must be"),
        (["--modes", "float16"], "invalid choice: 'float16'"),
        (["--paper", "--shifts", "3"], "not allowed with argument"),
        (["--text", "nowhere.txt"], "--text: no file matches nowhere.txt"),
    ],
)
def test_what_cannot_be_measured_is_one_line_before_anything_is(
    options, message, run, given, capsys, monkeypatch
):
    monkeypatch.setattr(loading, "load", lambda *_: pytest.fail("it was loaded"))
    try:
        code, asked = run(*given, *options)
        assert asked == []
    except SystemExit as done:
        code = done.code
    said = capsys.readouterr().err
    assert (code, said.count("\n")) == (2, 1)
    assert message in said


@pytest.mark.parametrize("one", [["--model", "folder"], ["--text", "a.txt"]])
def test_a_model_needs_a_text(one, run, capsys):
    with pytest.raises(SystemExit):
        run(*one)
    assert "--model and --text go together" in capsys.readouterr().err


@pytest.mark.gpu
def test_on_a_gpu_d_is_what_it_is_on_a_cpu(given, tmp_path):
    from cadenza.studies.rope_precision.discrepancy import discrepancies

    ids = torch.arange(20) + 3
    model = build("llama", attention="eager", initializer_range=0.3).double()
    here, there = (discrepancies(model.to(device), ids, 0, [1000])[0] for device in ("cpu", "cuda"))
    assert float(here.inside.sum()) == pytest.approx(float(there.inside.sum()), rel=0.3)
