"""Two devices evaluate an odd number of examples: one prediction each, and the scores of one device."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

COMPOSER = [str(Path(sys.executable).with_name("composer")), "-n", "2", "train.py"]


@pytest.mark.slow
def test_two_processes_predict_what_one_does(tuning, tmp_path):
    tuning()  # writes the recipe
    pairs = [
        *(f"data.source={tmp_path / 'colours.csv'}", f"model.pretrained={tmp_path / 'encoder'}"),
        *(f"tokenizer.name={tmp_path / 'encoder'}", "data.eval_examples=21", "train.max_duration=6ba"),
        *(f"train.run_folder={tmp_path / 'runs'}", "train.save_interval=6ba", "train.global_batch_size=16"),
    ]
    recipe = str(tmp_path / "tiny.yaml")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*COMPOSER, recipe, *pairs, "name=two"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads((tmp_path / "runs/two/run.json").read_text())
    assert record["device"]["world_size"] == 2
    assert record["eval"]["examples"] == 21

    from cadenza.recipe.run import evaluate

    _, found = evaluate(tuning("data.eval_examples=21", f"model.pretrained={tmp_path / 'runs/two'}"))
    assert found["loss"] == pytest.approx(record["eval"]["loss"], rel=1e-4)
    assert found["accuracy"] == pytest.approx(record["eval"]["accuracy"])
    with (tmp_path / "runs/two/predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["text"] for row in rows}) == 21
    right = [row["label"] == row["prediction"] for row in rows]
    assert sum(right) / 21 == pytest.approx(record["eval"]["accuracy"])
