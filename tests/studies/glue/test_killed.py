"""The study for real: tiny runs in processes of their own, killed in the middle and resumed."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from families import build
from paths import ROOT
from patience import PATIENCE

from cadenza.data import train_wordpiece
from cadenza.models import save
from cadenza.studies.glue import study
from cadenza.studies.glue.__main__ import main
from cadenza.studies.running import cells

GOOD, BAD = ("good", "fine", "great"), ("bad", "poor", "awful")
WORDS = ["the", "a", "film", "plot", "actor", "scene", "is", "was", "very", "quite"]


def text(number, word):
    """A sentence of a kind, with `word` in it."""
    words = [WORDS[(number * step) % len(WORDS)] for step in (1, 3, 7)]
    return " ".join([*words[: number % 3], word, *words])


@pytest.fixture
def arguments(tmp_path):
    films = [f"{text(n, (GOOD if n % 2 else BAD)[n % 3])},{'good' if n % 2 else 'bad'}" for n in range(120)]
    (tmp_path / "films.csv").write_text("\n".join(["text,label", *films]) + "\n")
    sides = [(text(n, GOOD[n % 3]), text(n + 1, (GOOD if n % 2 else BAD)[n % 3])) for n in range(120)]
    pairs = [f"{one},{other},{'same' if n % 2 else 'other'}" for n, (one, other) in enumerate(sides)]
    (tmp_path / "pairs.csv").write_text("\n".join(["one,two,label", *pairs]) + "\n")
    tokenizer = train_wordpiece([" ".join([*WORDS, *GOOD, *BAD])] * 3, 300)
    save(build("bert", vocab_size=len(tokenizer)), tmp_path / "bert", tokenizer)
    (tmp_path / "study.yaml").write_text(f"""
models: [{tmp_path}/bert]
recipe: [{ROOT}/yamls/finetune.yaml]
overrides:
  - optimizer.lr=0.005
  - train.max_duration=20ba
  - train.global_batch_size=8
  - train.eval_interval=1dur
  - train.save_interval=5ba
  - train.precision=fp32
  - data.max_seq_len=24
tasks:
  films: {{data: {{source: {tmp_path}/films.csv}}, seeds: [1, 2], metrics: [accuracy, f1]}}
  pairs:
    data: {{source: {tmp_path}/pairs.csv, text_field: one, pair_field: two}}
    after: films
    seeds: [1]
""")
    return [str(tmp_path / "study.yaml")]


def tables(folder):
    """The page without its hours."""
    return (folder / "glue.md").read_text().partition("| hours |")[0]


def losses(file):
    """The loss of each run, by task, start and seed."""
    rows = cells.done(file)
    return {(r["task"], r["start"], r["seed"]): json.loads(r["metrics"])["loss"] for r in rows}


def until(holds):
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
def test_a_killed_study_resumes_with_its_finished_runs(arguments, tmp_path, monkeypatch):
    """Its tables are those of a study that wasn't killed, whose runs had one process."""
    killed, out = tmp_path / "killed", tmp_path / "killed/glue.csv"
    command = [sys.executable, "-m", "cadenza.studies.glue", *arguments, f"out={killed}"]
    environment = {**os.environ, "CADENZA_CACHE": str(tmp_path / "cache")}
    first = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    going = "runs/*/bert-*/films-0.005-2/checkpoints/latest-rank0.pt"
    until(lambda: list(killed.glob(going)) or first.poll() is not None)
    first.send_signal(signal.SIGTERM)
    said = first.communicate(timeout=PATIENCE)[1]
    assert first.returncode == 143, said
    assert "jobs are done; the same command goes on with the others" in said.splitlines()[-1]
    before = out.read_text()
    done = cells.done(out)
    assert (done[0]["task"], done[0]["seed"]) == ("films", "1")
    assert len(done) < 4

    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert out.read_text().startswith(before), "finished runs are kept"
    assert len(cells.done(out)) == 4
    if len(done) == 1:
        (log,) = killed.glob("runs/*/bert-*/films-0.005-2/log.txt")
        assert "resumed after batch" in log.read_text()

    monkeypatch.setenv("CADENZA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(study, "run_jobs", lambda jobs, _: ((job, job.call(*job.arguments)) for job in jobs))
    whole = tmp_path / "whole"
    assert main([*arguments, f"out={whole}"]) == 0
    assert tables(killed) == tables(whole)
    found, expected = losses(out), losses(whole / "glue.csv")
    assert found == pytest.approx(expected, rel=1e-4)
    assert len(found) == len(set(found.values())) == 4, "each run is one of its own"
