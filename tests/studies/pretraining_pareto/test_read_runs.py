"""Runs as the study reads them from their folders, and what it refuses."""

import json

import made_runs
import pytest

from cadenza.studies.checks import StudyError
from cadenza.studies.pretraining_pareto.points import Spent
from cadenza.studies.pretraining_pareto.runs import read_all


def one(folder):
    (run,) = read_all([folder])
    return run


def test_a_run_has_what_was_spent_and_its_evaluations(tmp_path):
    run = one(made_runs.run(tmp_path / "base", {0: 9.0, 2: 3.0, 4: 2.0}, hours=0.5))
    assert run.name == "base"
    assert run.spent[3] == Spent(1.5, 3000, 3e12)
    assert run.losses == {0: 9.0, 2: 3.0, 4: 2.0}
    assert run.points[0].spent == Spent(0.0, 0, 0.0), "before the first batch there are no tokens"
    assert [(p.batch, p.spent.hours, p.value) for p in run.points] == [(0, 0, 9), (2, 1, 3), (4, 2, 2)]
    assert (run.last, run.devices) == (4, "8 x A")


def test_unknown_flops_are_none(tmp_path):
    assert one(made_runs.run(tmp_path / "a", {2: 3.0}, flops=False)).spent[2] == Spent(2.0, 2000, None)


def test_a_loss_that_is_not_finite_is_no_point(tmp_path):
    assert one(made_runs.run(tmp_path / "a", {1: None, 2: 3.0})).losses == {2: 3.0}


def test_the_last_evaluation_of_a_batch_counts(tmp_path):
    folder = made_runs.run(tmp_path / "a", {2: 3.0})
    lines = (folder / "metrics.jsonl").read_text()
    again = json.loads(lines.splitlines()[-1]) | {"evaluation": {"loss": 2.5}}
    (folder / "metrics.jsonl").write_text(lines + json.dumps(again) + "\n")
    assert one(folder).losses == {2: 2.5}


def test_a_run_that_trains_has_no_devices_yet(tmp_path):
    assert one(made_runs.run(tmp_path / "a", {2: 3.0}, ended=False)).devices == ""


@pytest.mark.parametrize("record", ["", "3", "{}", '{"train": {"batches": 9}, "device": {"world_size": 1}}'])
def test_a_record_of_an_earlier_training_is_not_taken(tmp_path, record):
    """The record of the training before stays in the folder until the next one ends."""
    folder = made_runs.run(tmp_path / "a", {2: 3.0}, ended=False)
    (folder / "run.json").write_text(record)
    assert one(folder).device is None


def test_a_run_that_is_named_twice_is_one(tmp_path, monkeypatch):
    made_runs.run(tmp_path / "runs/a", {2: 3.0})
    monkeypatch.chdir(tmp_path)
    again = tmp_path / "runs" / ".." / "runs" / "a"
    assert [run.name for run in read_all([tmp_path / "runs/a", again])] == ["a"]


def test_runs_of_one_name_go_by_their_paths(tmp_path):
    folders = [made_runs.run(tmp_path / where / "base", {2: 3.0}) for where in ("one", "two")]
    assert [run.name for run in read_all(folders)] == [str(folder) for folder in folders]


def refused(*folders):
    with pytest.raises(StudyError) as error:
        read_all(folders)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_folder_that_is_no_run(tmp_path):
    assert "nowhere: there is no metrics.jsonl in it; name a run's folder" in refused(tmp_path / "nowhere")
    made_runs.run(tmp_path / "a", {2: 3.0})
    assert f"name the runs in it, such as {tmp_path / 'a'}" in refused(tmp_path)


def test_a_run_without_its_recipe(tmp_path):
    folder = made_runs.run(tmp_path / "a", {2: 3.0})
    (folder / "recipe.yaml").unlink()
    assert "a: there is no recipe.yaml in it" in refused(folder)


@pytest.mark.parametrize("objective", ["text_classification", "image_classification"])
def test_a_run_that_is_no_pretraining(tmp_path, objective):
    folder = made_runs.run(tmp_path / "a", {2: 3.0}, model__objective=objective)
    assert f"a is a run of {objective}; it must be one of masked_lm or causal_lm" in refused(folder)


def lines_of(folder, keep):
    """The folder, with those rows of its metrics whose batch `keep` takes."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if keep(json.loads(line)["batch"])))
    return folder


def test_a_run_that_was_resumed_elsewhere(tmp_path):
    folder = lines_of(made_runs.run(tmp_path / "a", {2: 3.0, 6: 2.0}), lambda batch: batch > 3)
    assert "its metrics begin at batch 4: it was resumed from a checkpoint of another folder" in refused(
        folder
    )


def test_a_run_whose_metrics_have_a_gap(tmp_path):
    folder = lines_of(made_runs.run(tmp_path / "a", {2: 3.0, 6: 2.0}), lambda batch: batch not in (3, 4))
    assert "its metrics go from batch 2 to 5; they must be whole" in refused(folder)


def test_a_run_in_which_nothing_was_trained(tmp_path):
    assert "nothing was trained yet" in refused(made_runs.run(tmp_path / "a", {0: 9.0}))
    (tmp_path / "a" / "metrics.jsonl").write_text("")
    assert "nothing was trained yet" in refused(tmp_path / "a")


@pytest.mark.parametrize("line", ["{}", "3", "[1]", '{"batch": 1}', '{"batch": 1, "evaluation": 3}', "null"])
def test_a_file_that_is_not_of_a_run(tmp_path, line):
    folder = made_runs.run(tmp_path / "a", {2: 3.0})
    (folder / "metrics.jsonl").write_text(line + "\n")
    said = refused(folder)
    assert "metrics.jsonl: it isn't the file of a run" in said or "nothing was trained yet" in said
