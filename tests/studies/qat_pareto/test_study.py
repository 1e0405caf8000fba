"""The study, played in its own process: points that are done once, resumed, collected, reported; errors."""

import csv
import json

import pytest
import torch
from paths import ROOT

from cadenza.algorithms import apply_quantization_aware_training
from cadenza.models import resnet
from cadenza.recipe import run
from cadenza.recipe.errors import Stopped
from cadenza.studies import compute_cost
from cadenza.studies.qat_pareto import __main__ as qat_pareto
from cadenza.studies.qat_pareto import cell, study
from cadenza.studies.qat_pareto.collecting import Finished
from cadenza.studies.qat_pareto.settings import in_bits

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
TENSOR = "variants={tensor: {quantization: {granularity: per_tensor}}}"


@pytest.fixture
def settings(tmp_path):
    """Points of less than a second; other overrides of the recipe by keyword."""

    def settings(*pairs, **more):
        overrides = ",".join(f"{key}={value}" for key, value in {**TINY, **more}.items())
        common = [f"recipe=[{','.join(FILES)}]", f"overrides=[{overrides}]", f"out={tmp_path / 'out'}"]
        return [*common, "model_types=[resnet10]", "widths=[0.125]", "calibrate_until=2ba", *pairs]

    return settings


@pytest.fixture
def stand_in(in_process, monkeypatch):
    """Nothing is trained: the names of the points that would have been."""

    def scores(asked, point):
        accuracy = 0.5 + 0.01 * (asked.quantization != {}) + point.seed / 1e4
        found = {"accuracy": accuracy, "loss": 1.0, "train_accuracy": 0.6, "seconds": 1.0, "versions": "none"}
        return {**point.kind._asdict(), "seed": point.seed, **found, **cost_of(point.kind.bits)}

    monkeypatch.setattr(
        cell, "measured", lambda asked: {**scores(asked, asked.point), "run": "", "settings": asked.settings}
    )
    return in_process


def rows_of(folder):
    with (folder / "qat_pareto.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def measures(row):
    return [row[name] for name in ("accuracy", "loss", "train_accuracy")]


def cost_of(bits):
    """That of a network which is built here."""
    network = resnet("resnet10", 0.125, 10, 1, "small").module
    if bits != "none":
        apply_quantization_aware_training(network, *in_bits(bits), 8)
    return compute_cost.totals(compute_cost.layer_costs(network, torch.zeros(1, 1, 8, 8)))


@pytest.mark.slow
def test_points_are_measured_once_and_reported(settings, in_process, tmp_path, monkeypatch, capsys):
    arguments = settings("bits=[none,w4a4]", "post_training=[w8a8,w2a2]", TENSOR)
    assert qat_pareto.main(arguments) == 0
    rows = rows_of(tmp_path / "out")
    kinds = [(r["bits"], r["variant"], r["trained"]) for r in rows]
    trained = [("none", "base", "True"), ("w4a4", "base", "True"), ("w4a4", "tensor", "True")]
    assert kinds == [*trained, ("w8a8", "base", "False"), ("w2a2", "base", "False")]
    for each in rows:
        cost = cost_of(each["bits"])
        assert {name: float(each[name]) for name in cost} == cost
    for each in rows[:3]:
        record = json.loads(
            (tmp_path / "out" / "runs" / each["run"].rpartition("/")[2] / "run.json").read_text()
        )
        assert [float(each[n]) for n in ("accuracy", "loss")] == [record["eval"][n] for n in ("top1", "loss")]
        assert float(each["train_accuracy"]) == record["train"]["top1"]
        assert (float(each["seconds"]), record["train"]["batches"]) == (record["train"]["seconds"], 6)
        own = record["recipe"]["algorithms"].get("quantization_aware_training", {"granularity": None})
        assert own["granularity"] == {"none": None}.get(
            each["bits"], "per_tensor" if each["variant"] == "tensor" else "per_channel"
        )
    none, four, tensor, eight, two = (float(each["loss"]) for each in rows)
    assert len({none, four, tensor}) == 3
    assert 0 < 3 * abs(eight - none) < abs(two - none), "eight bits cost little after training, two much"
    page = (tmp_path / "out/qat_pareto.md").read_text()
    assert f"| resnet10 x 0.125 | none | 1.000 | {int(rows[0]['memory_bits']) / 1e3:,.0f} | " in page
    assert "| resnet10 x 0.125 | w2a2, after training | " in page
    assert "| resnet10 x 0.125 | w4a4 | tensor | " in page
    for name in ("qat_pareto.png", "qat_gap.png", "qat_variants.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
    assert "written: " in capsys.readouterr().out

    in_process.clear()
    assert qat_pareto.main(arguments) == 0
    assert in_process == []
    assert rows_of(tmp_path / "out") == rows
    assert (tmp_path / "out/qat_pareto.md").read_text() == page


@pytest.mark.slow
def test_parts_of_two_machines_are_one_figure(settings, in_process, tmp_path):
    """Each trains a part; a third draws the figure, and quantizes after training from their checkpoints."""
    both = settings("bits=[none,w4a4]", "seeds=[17,18]")
    for part in (1, 2):
        assert qat_pareto.main([*both, f"part={part}/2", f"out={tmp_path / str(part)}"]) == 0
    assert in_process == [f"resnet10-0.125-{bits}-{seed}" for seed in (17, 18) for bits in ("none", "w4a4")]
    in_process.clear()
    runs = f"runs=[{tmp_path / '1' / 'runs'},{tmp_path / '2' / 'runs'}]"
    assert qat_pareto.main([*both, runs, "train=false"]) == 0
    assert in_process == []
    found, theirs = rows_of(tmp_path / "out"), [*rows_of(tmp_path / "1"), *rows_of(tmp_path / "2")]
    assert sorted(map(str, found)) == sorted(map(str, theirs))
    assert qat_pareto.main([*both, runs, "post_training=[w2a2]"]) == 0
    assert in_process == [f"resnet10-0.125-w2a2-after-{seed}" for seed in (17, 18)]
    after_training = rows_of(tmp_path / "out")[-1]
    assert str(tmp_path / "2" / "runs") in after_training["run"]


def test_a_collected_run_is_not_measured_again(settings, stand_in, tmp_path, monkeypatch, capsys):
    """Its scores become a row, with which it must agree later."""
    scores = {"accuracy": 0.7, "loss": 0.9, "train_accuracy": 0.8, "seconds": 5.0, "versions": "theirs"}

    def collected(plan):
        return {plan.points[0]: Finished(tmp_path / "there", None, dict(scores))}

    monkeypatch.setattr(study, "collect", collected)
    arguments = settings("bits=[none,w4a4]")
    assert qat_pareto.main(arguments) == 0
    assert stand_in == ["resnet10-0.125-w4a4-17"], "the one in full precision is collected"
    assert [row["accuracy"] for row in rows_of(tmp_path / "out")] == ["0.7", "0.5117"]
    scores["accuracy"] = 0.6
    assert qat_pareto.main(arguments) == 2
    assert "there is resnet10-0.125-none-17, and disagrees with" in capsys.readouterr().err


def test_without_training_some_points_must_be_there(settings, stand_in, tmp_path, capsys):
    assert qat_pareto.main(settings("bits=[none]", "train=false", f"out={tmp_path / 'empty'}")) == 2
    assert "none of the points is there; name the folders by runs" in capsys.readouterr().err


def test_more_points_leave_those_alone_that_are_done(settings, stand_in, tmp_path):
    assert qat_pareto.main(settings("bits=[none]")) == 0
    assert qat_pareto.main(settings("bits=[none,w4a4]", "seeds=[17,18]", TENSOR)) == 0
    names = ["none-17", "none-18", "w4a4-17", "w4a4-tensor-17", "w4a4-18", "w4a4-tensor-18"]
    assert stand_in == [f"resnet10-0.125-{name}" for name in names]
    stand_in.clear()
    assert qat_pareto.main(settings("bits=[none,w4a4]", "edge_bits=null")) == 0
    assert stand_in == ["resnet10-0.125-w4a4-17"], "full precision has no edge_bits"
    assert qat_pareto.main(settings("bits=[none]", **{"optimizer.lr": 0.2})) == 0
    assert stand_in[1:] == ["resnet10-0.125-none-17"], "another recipe is another point"


def test_without_training_the_page_says_what_is_missing(settings, stand_in, tmp_path):
    assert qat_pareto.main(settings("bits=[none]")) == 0
    assert qat_pareto.main(settings("bits=[none,w4a4]", "train=false")) == 0
    assert len(stand_in) == 1
    page = (tmp_path / "out/qat_pareto.md").read_text()
    assert "1 points aren't there yet, such as resnet10-0.125-w4a4-17." in page


def test_a_file_of_an_earlier_version_is_refused(settings, stand_in, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/qat_pareto.csv").write_text(
        "model_type,width,bits,seed,trained\nresnet10,1,none,17,True\n"
    )
    assert qat_pareto.main(settings("bits=[none]")) == 2
    assert "is of an earlier version of this study; name another folder" in capsys.readouterr().err


@pytest.mark.slow
def test_a_study_that_was_stopped_goes_on(settings, in_process, tmp_path, monkeypatch, capsys):
    """In the middle of a point, which resumes from its checkpoint; its row is as if nothing had happened."""
    from composer.core import Callback

    from cadenza.recipe import trainer as trainers

    class Stops(Callback):
        def batch_end(self, state, logger):
            if state.timestamp.batch == 5:
                raise Stopped("here")

    arguments = settings("bits=[w4a4]", "calibrate_until=4ba")
    assert qat_pareto.main([*arguments, f"out={tmp_path / 'whole'}"]) == 0
    usual = trainers.callbacks
    monkeypatch.setattr(trainers, "callbacks", lambda recipe: [*usual(recipe), Stops()])
    assert qat_pareto.main(arguments) == 130
    monkeypatch.setattr(trainers, "callbacks", usual)
    assert not (tmp_path / "out/qat_pareto.csv").exists()
    capsys.readouterr()
    assert qat_pareto.main(arguments) == 0
    assert "resumed after batch 3" in capsys.readouterr().out
    assert measures(rows_of(tmp_path / "out")[0]) == measures(rows_of(tmp_path / "whole")[0])


@pytest.mark.slow
def test_points_run_side_by_side_and_wait_for_what_they_start_from(settings, tmp_path):
    """In processes of their own."""
    teacher = "variants={from_full: {overrides: ['data.split={full}']}}"
    assert qat_pareto.main(settings("bits=[none,w4a4]", "processes=2", "post_training=[w4a4]", teacher)) == 0
    rows = {(r["variant"], r["bits"], r["trained"]): r for r in rows_of(tmp_path / "out")}
    assert len(rows) == 4
    full = rows["base", "none", "True"]["run"]
    record = json.loads((tmp_path / rows["from_full", "w4a4", "True"]["run"] / "run.json").read_text())
    assert record["recipe"]["data"]["split"] == full
    assert rows["base", "w4a4", "False"]["run"] == full


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["recipe=[]"], "recipe is empty; it must name one at least"),
        (["bits=[none,w4]"], "bits: 'w4' is neither none nor like w4a4"),
        (["widhts=[1.0]"], "unknown key widhts; did you mean 'widths'?"),
        (["bits=[none,w9a4]"], "weight_bits is 9; it must be at most 8"),
        (["edge_bits=1"], "edge_bits is 1; it must be at least 2"),
        (["calibrate_until=soon"], "calibrate_until is 'soon'; it must be a number with a unit"),
        (["granularity=per_row"], "granularity is 'per_row'; it must be per_channel or per_tensor"),
        (["recipe=[nowhere.yaml]"], "nowhere.yaml: there is no such file"),
        (["overrides=[data.sorce=digits]"], "unknown key data.sorce; did you mean 'source'?"),
        (["variants={x: {overrides: [optimizer.rl=1]}}"], "variants.x: overrides: unknown key optimizer.rl"),
        (["runs=[nowhere]"], "runs: nowhere holds no run"),
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
