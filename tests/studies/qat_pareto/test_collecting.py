"""Finished runs of other machines, made up: which points they are, and which are refused."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from paths import ROOT

from cadenza.recipe.runs import kept_recipe
from cadenza.studies.checks import StudyError
from cadenza.studies.qat_pareto import collecting
from cadenza.studies.qat_pareto.plan import Plan
from cadenza.studies.qat_pareto.points import Kind, Point
from cadenza.studies.qat_pareto.settings import Pareto

FILES = [str(ROOT / f"yamls/{name}.yaml") for name in ("resnet50_bf16", "scale/cpu_images")]
VARIANTS = {
    "tensor": {"quantization": {"granularity": "per_tensor"}},
    "lr": {"overrides": ["optimizer.lr=0.02"]},
    "teacher": {"overrides": ["train.load_path={full}", "data.split={full}/x"]},
}
NONE, FOUR = Kind("resnet10", 0.5, "none"), Kind("resnet10", 0.5, "w4a4")


def plan(tmp_path, **options):
    common = {
        "model_types": ["resnet10"],
        "widths": [0.5],
        "bits": ["none", "w4a4"],
        "calibrate_until": "2ba",
    }
    own = {"overrides": ["data.source=digits"], "out": str(tmp_path / "out"), "variants": VARIANTS}
    return Plan(Pareto(recipe=FILES, **{**common, **own, **options}))


def run_of(plan, point, folder, accuracy=0.5, change=None):
    """A finished run by the recipe of a point."""
    recipe = dataclasses.asdict(plan.cell(point).recipe)
    if change is not None:
        change(recipe)
    record = {
        "recipe": recipe,
        "eval": {"top1": accuracy, "top5": 0.9, "loss": 1.0},
        "train": {"top1": 0.75, "seconds": 12.0, "batches": 6},
        "versions": {"torch": "2.7.0"},
        "device": {"kind": "gpu", "world_size": 1},
        "precision": "amp_bf16",
    }
    path = folder / Path(point.name)
    path.mkdir(parents=True)
    (path / "run.json").write_text(json.dumps(record))
    return path


def test_runs_are_found_by_their_recipes(tmp_path):
    """Wherever they are, whatever they are called; each variant is told from the others."""
    made, there = plan(tmp_path), tmp_path / "there"
    wanted = [Point(NONE, 17), Point(FOUR, 17)]
    wanted += [Point(FOUR._replace(variant=name), 17) for name in ("tensor", "lr")]
    folders = [run_of(made, point, there) for point in wanted]
    for folder in folders:
        folder.rename(folder.with_name(folder.name[::-1]))
    found = collecting.collect(plan(tmp_path, runs=[str(there)]))
    assert set(found) == set(wanted)
    assert found[wanted[0]].scores == {
        **{"accuracy": 0.5, "loss": 1.0, "train_accuracy": 0.75, "seconds": 12.0},
        "versions": "torch 2.7.0, gpu, amp_bf16",
    }
    one = collecting.collect(plan(tmp_path, runs=[str(there / "*enon*"), str(there / "*enon*")]))
    assert set(one) == {wanted[0], *(p for p in wanted if p.kind.bits == "none")}


def test_a_teacher_elsewhere_is_the_same_teacher(tmp_path):
    """Its folder is part of the recipe; its name, which has the hash of its own recipe, must be the same."""
    point = Point(FOUR._replace(variant="teacher"), 17)
    made = plan(tmp_path / "other")
    path = run_of(made, point, tmp_path / "there")
    assert (
        str(tmp_path / "other") in json.loads((path / "run.json").read_text())["recipe"]["train"]["load_path"]
    )
    here = plan(tmp_path / "here", runs=[str(path)])
    assert set(collecting.collect(here)) == {point}
    assert here.comparable(point)["data.split"] == "{full}/x"
    other = plan(
        tmp_path / "here", runs=[str(path)], edge_bits=5, overrides=["data.source=digits", "optimizer.lr=1"]
    )
    with pytest.raises(StudyError, match="has another recipe"):
        collecting.collect(other)


def test_a_teacher_that_is_collected_too_may_have_any_name(tmp_path):
    """As one of an earlier version, or of `composer train.py`."""
    full, point = Point(NONE, 17), Point(FOUR._replace(variant="teacher"), 17)
    made = plan(tmp_path / "other")
    teacher = run_of(made, full, tmp_path / "there").rename(tmp_path / "there/w4a4 is not my name")
    (teacher / "checkpoints").mkdir()
    (teacher / "checkpoints/latest-rank0.pt").touch()

    def named(recipe):
        recipe["train"]["load_path"], recipe["data"]["split"] = str(teacher), f"{teacher}/x"

    run_of(made, point, tmp_path / "there", change=named)
    here = plan(tmp_path / "here", runs=[str(tmp_path / "there")])
    assert set(collecting.collect(here)) == {full, point}


def test_keys_that_a_record_lacks_have_their_defaults(tmp_path):
    """A run of an earlier version, or one whose recipe named some of the options."""

    def older(recipe):
        del recipe["model"]["stem"]
        recipe["algorithms"]["quantization_aware_training"] = {"calibrate_until": "2ba"}

    made = plan(tmp_path, overrides=["data.source=digits", "model.stem=imagenet"])
    path = run_of(made, Point(FOUR, 17), tmp_path / "there", change=older)
    made.cfg.runs = [str(path)]
    assert set(collecting.collect(made)) == {Point(FOUR, 17)}


def test_places_of_data_and_runs_do_not_matter(tmp_path):
    def elsewhere(recipe):
        recipe["data"]["root"], recipe["train"]["run_folder"], recipe["name"] = "/there", "/here", "other"

    made = plan(tmp_path)
    made.cfg.runs = [str(run_of(made, Point(NONE, 17), tmp_path / "there", change=elsewhere))]
    assert set(collecting.collect(made)) == {Point(NONE, 17)}


@pytest.mark.parametrize(
    ("section", "key", "value", "said"),
    [
        ("optimizer", "momentum", 0.5, "than the settings': optimizer.momentum: 0.5, here 0.9"),
        ("train", "max_duration", "7ep", "than the settings': train.max_duration: 7ep, here 6ep"),
    ],
)
def test_another_recipe_is_refused_by_its_first_key(tmp_path, section, key, value, said):
    def change(recipe):
        recipe[section][key] = value

    made = plan(tmp_path)
    path = run_of(made, Point(NONE, 17), tmp_path / "there", change=change)
    made.cfg.runs = [str(path)]
    with pytest.raises(StudyError, match=f"{path} has another recipe {said}"):
        collecting.collect(made)


def test_runs_outside_of_the_points_are_named(tmp_path, capsys):
    made, there = plan(tmp_path), tmp_path / "there"
    run_of(made, Point(NONE, 17), there)
    other = run_of(made, Point(NONE._replace(width=0.25), 18), there)
    made.cfg.runs = [str(there)]
    assert set(collecting.collect(made)) == {Point(NONE, 17)}
    assert f"runs: 1 are no points of these settings, such as {other}" in capsys.readouterr().out


def test_a_run_that_has_not_ended_is_refused(tmp_path):
    made = plan(tmp_path)
    folder = tmp_path / "there" / "half"
    folder.mkdir(parents=True)
    (folder / kept_recipe.FILE).write_text("name: half\n")
    made.cfg.runs = [str(tmp_path / "there")]
    with pytest.raises(StudyError, match=f"runs: {folder} hasn't ended, it has no run.json"):
        collecting.collect(made)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"recipe": {}, "eval": {}, "train": {}}'])
def test_a_broken_record_is_refused(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(StudyError, match=r"run\.json isn't the record of a run whose accuracy can be read"):
        collecting.collect(plan(tmp_path, runs=[str(tmp_path)]))


def test_no_run_is_refused(tmp_path):
    with pytest.raises(StudyError, match=r"runs: .*nowhere\* holds no run; name folders of runs"):
        collecting.collect(plan(tmp_path, runs=[str(tmp_path / "nowhere*")]))


def test_two_runs_of_a_point_must_agree(tmp_path):
    made = plan(tmp_path)
    first = run_of(made, Point(NONE, 17), tmp_path / "a")
    second = tmp_path / "b" / first.name
    shutil.copytree(first, second)
    made.cfg.runs = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert collecting.collect(made)[Point(NONE, 17)].folder == first
    shutil.rmtree(second)
    run_of(made, Point(NONE, 17), tmp_path / "b", accuracy=0.6)
    with pytest.raises(StudyError, match=f"{first} and {second} are both {first.name}, and disagree"):
        collecting.collect(made)


def test_what_starts_from_a_run_needs_its_weights(tmp_path):
    made = plan(tmp_path, post_training=["w4a4"])
    folder = run_of(made, Point(NONE, 17), tmp_path / "there")
    made.collected[Point(NONE, 17)] = folder
    with pytest.raises(StudyError, match=f"starts from the weights of {folder}, which has no checkpoints"):
        made.refuse_without_weights()
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "latest-rank0.pt").touch()
    made.refuse_without_weights()
    after, teacher = Point(FOUR._replace(trained=False), 17), Point(FOUR._replace(variant="teacher"), 17)
    assert made.cell(after).recipe.folder == folder
    assert made.cell(teacher).recipe.train.load_path == str(folder)
    assert made.after(after) == made.after(teacher) == [Point(NONE, 17)]
    assert made.after(Point(FOUR, 17)) == []


def test_text_has_its_accuracy():
    record = {
        "eval": {"accuracy": 0.8, "loss": 0.4, "most_frequent": 0.5},
        "train": {"seconds": 3.0, "loss": 1.0},
    }
    found = collecting.scores_of(record)
    assert (found["accuracy"], found["loss"], found["train_accuracy"]) == (0.8, 0.4, None)
