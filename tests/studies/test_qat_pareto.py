"""Accuracy against cost, played: points that are done once, resumed, reported; errors."""

import csv
import json

import pytest
import torch
from composer.core import Callback
from paths import ROOT

from cadenza.algorithms import apply_quantization_aware_training
from cadenza.models import resnet
from cadenza.recipe import run
from cadenza.recipe import trainer as trainers
from cadenza.studies import compute_cost, qat_pareto
from cadenza.studies.qat_pareto import in_bits

pytestmark = pytest.mark.slow


TINY = {
    "data.source": "digits",
    "data.augmentation": "none",
    "model.stem": "small",
    "train.max_duration": "6ba",
    "train.save_interval": "3ba",
    "train.eval_interval": "1dur",
    "train.global_batch_size": 64,
    "train.device_train_microbatch_size": 64,
    "train.eval_batch_size": 100,
}
FILES = [str(ROOT / "yamls/resnet50_bf16.yaml"), str(ROOT / "yamls/scale/cpu_images.yaml")]


@pytest.fixture
def settings(tmp_path):
    """Points of less than a second; other overrides of the recipe by keyword."""

    def settings(*pairs, **more):
        overrides = ",".join(f"{key}={value}" for key, value in {**TINY, **more}.items())
        common = [f"recipe=[{','.join(FILES)}]", f"overrides=[{overrides}]", f"out={tmp_path / 'out'}"]
        return [*common, "model_types=[resnet10]", "widths=[0.125]", "calibrate_until=2ba", *pairs]

    return settings


def rows_of(folder):
    with (folder / "out" / "qat_pareto.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def measures(row):
    return [row[name] for name in ("top1", "top5", "loss", "train_top1")]


def cost_of(bits):
    """That of a network which is built here."""
    network = resnet("resnet10", 0.125, 10, 1, "small").module
    if bits != "none":
        apply_quantization_aware_training(network, *in_bits(bits), 8)
    return compute_cost.totals(compute_cost.layer_costs(network, torch.zeros(1, 1, 8, 8)))


def test_points_are_measured_once_and_reported(settings, tmp_path, monkeypatch, capsys):
    arguments = settings("bits=[none,w4a4]", "post_training=[w8a8,w2a2]")
    assert qat_pareto.main(arguments) == 0
    rows = rows_of(tmp_path)
    kinds = [(r["bits"], r["trained"]) for r in rows]
    assert kinds == [("none", "True"), ("w4a4", "True"), ("w8a8", "False"), ("w2a2", "False")]
    for each in rows:
        cost = cost_of(each["bits"])
        assert {name: float(each[name]) for name in cost} == cost
    for each in rows[:2]:
        record = json.loads(
            next(tmp_path.glob(f"out/runs/*/resnet10-0.125-{each['bits']}-17/run.json")).read_text()
        )
        assert [float(each[name]) for name in ("top1", "loss")] == [
            record["eval"][n] for n in ("top1", "loss")
        ]
        assert float(each["train_top1"]) == record["train"]["top1"]
        assert len(record["surgeries"]) == (each["bits"] != "none")
        assert (float(each["seconds"]), record["train"]["batches"]) == (record["train"]["seconds"], 6)
    none, four, eight, two = (float(each["loss"]) for each in rows)
    assert four != none
    assert 0 < 3 * abs(eight - none) < abs(two - none), "eight bits cost little after training, two much"
    page = (tmp_path / "out/qat_pareto.md").read_text()
    assert f"| resnet10 x 0.125 | none | 1.000 | {int(rows[0]['memory_bits']) / 1e3:,.0f} | " in page
    assert "| resnet10 x 0.125 | w2a2, after training | " in page
    assert "- The front against linear cost is mostly 4-bit: " in page
    for name in ("qat_pareto.png", "qat_gap.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
    assert "written: " in capsys.readouterr().out

    monkeypatch.setattr(run, "train", None)
    monkeypatch.setattr(trainers, "build_trainer", None)
    assert qat_pareto.main(arguments) == 0
    assert rows_of(tmp_path) == rows
    assert (tmp_path / "out/qat_pareto.md").read_text() == page


def test_more_points_leave_those_alone_that_are_done(settings, tmp_path, monkeypatch):
    asked = []

    def measured(cfg, point):
        asked.append((point.bits, point.seed, cfg.edge_bits))
        accuracies = {"top1": 0.5, "top5": 0.9, "loss": 1.0, "train_top1": 0.6, "seconds": 1.0}
        return {**accuracies, **cost_of(point.bits)}

    monkeypatch.setattr(qat_pareto, "measured", measured)
    assert qat_pareto.main(settings("bits=[none]")) == 0
    assert qat_pareto.main(settings("bits=[none,w4a4]", "repeated=[none]", "more_seeds=[18]")) == 0
    assert asked == [("none", 17, 8), ("none", 18, 8), ("w4a4", 17, 8)]
    assert qat_pareto.main(settings("bits=[none]", "edge_bits=null")) == 0
    assert asked[3:] == [("none", 17, None)], "other settings are other cells"
    assert len(rows_of(tmp_path)) == 4


class Stops(Callback):
    """Ends a run after its fifth batch."""

    def batch_end(self, state, logger):
        if state.timestamp.batch == 5:
            raise KeyboardInterrupt


def test_a_point_that_was_stopped_goes_on(settings, tmp_path, monkeypatch, capsys):
    """In mid-calibration; its row is that of a run that wasn't stopped."""
    arguments = settings("bits=[w4a4]", "calibrate_until=4ba")
    assert qat_pareto.main([*arguments, f"out={tmp_path / 'whole' / 'out'}"]) == 0
    usual = trainers.callbacks
    monkeypatch.setattr(trainers, "callbacks", lambda recipe: [*usual(recipe), Stops()])
    assert qat_pareto.main(arguments) == 130
    assert "\nstopped: the last checkpoint is " in capsys.readouterr().err
    monkeypatch.setattr(trainers, "callbacks", usual)
    assert not (tmp_path / "out/qat_pareto.csv").exists()
    capsys.readouterr()
    assert qat_pareto.main(arguments) == 0
    assert "resumed after batch 3" in capsys.readouterr().out
    assert measures(rows_of(tmp_path)[0]) == measures(rows_of(tmp_path / "whole")[0])


def test_other_settings_are_trained_anew(settings, tmp_path):
    """In the same folder, where a run of the same network has come to its end."""
    assert qat_pareto.main(settings("bits=[none]")) == 0
    assert qat_pareto.main(settings("bits=[none]", **{"optimizer.lr": 0.2})) == 0
    first, second = (measures(each) for each in rows_of(tmp_path))
    assert first != second


def test_there_is_nothing_to_quantize_without_a_trained_network(settings, tmp_path, capsys):
    assert qat_pareto.main(settings("bits=[]", "post_training=[w4a4]")) == 2
    assert "there's no trained network to quantize; add none to bits" in capsys.readouterr().err
    assert not (tmp_path / "out/qat_pareto.csv").exists()


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["recipe=[]"], "recipe must name the recipe's files"),
        (["bits=[none,w4]"], "bits: 'w4' is neither none nor like w4a4"),
        (["repeated=[4]"], "repeated is [4] (list); it must be a list of text"),
        (["widhts=[1.0]"], "unknown key widhts; did you mean 'widths'?"),
        (["bits=[none,w9a4]"], "weight_bits is 9; it must be at most 8"),
        (["edge_bits=1"], "edge_bits is 1; it must be at least 2"),
        (["calibrate_until=soon"], "calibrate_until is 'soon'; it must be a number with a unit"),
        (["granularity=per_row"], "granularity is 'per_row'; it must be per_channel or per_tensor"),
        (["post_training=[none]"], "post_training"),
        (["recipe=[nowhere.yaml]"], "nowhere.yaml: there is no such file"),
        (["overrides=[data.sorce=digits]"], "unknown key data.sorce; did you mean 'source'?"),
    ],
)
def test_bad_settings_are_said_before_anything_is_trained(pairs, message, settings, monkeypatch, capsys):
    monkeypatch.setattr(run, "task_of", None)
    assert qat_pareto.main(settings("bits=[none,w4a4]", *pairs)) == 2
    lines = capsys.readouterr().err.splitlines()
    (said,) = (line for line in lines if line.startswith("error: "))
    assert message in said


def test_help(capsys):
    assert qat_pareto.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert "python -m cadenza.studies.qat_pareto yamls/qat_pareto.yaml" in said
    assert "calibrate_until" in said
