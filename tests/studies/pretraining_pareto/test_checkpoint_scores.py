"""Scores of checkpoints: read from results of the GLUE study, placed on runs, and asked for."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path

import made_runs
import pytest

from cadenza.recipe import load_settings
from cadenza.studies.checks import StudyError
from cadenza.studies.pretraining_pareto.points import Point, Spent
from cadenza.studies.pretraining_pareto.runs import read_all
from cadenza.studies.pretraining_pareto.scores import points_of
from cadenza.studies.pretraining_pareto.unscored import command, spread


@pytest.fixture
def base(tmp_path):
    """A run of 10 batches with three checkpoints."""
    folder = made_runs.run(tmp_path / "runs/base", {10: 2.0})
    made_runs.checkpoints(folder, 2, 6, 10)
    return folder


def placed(folder, *models, score=0.8):
    return points_of(read_all([folder]), {str(model): score for model in models})


def test_a_score_is_a_point_at_its_checkpoints_batch(base):
    points, notes = placed(base, base / "checkpoints/ep0-ba6-rank0.pt")
    assert points == [Point("base", "score", 6, Spent(6.0, 6000, 6e12), 0.8)]
    assert notes == []


def test_paths_are_compared_by_what_they_name(base, monkeypatch):
    monkeypatch.chdir(base.parent.parent)
    monkeypatch.setenv("HOME", str(base.parent))
    for model in ("runs/base/checkpoints/ep0-ba6-rank0.pt", "~/base/../base/checkpoints/ep0-ba6-rank0.pt"):
        assert placed(base, model)[0][0].batch == 6


def test_a_checkpoint_that_was_removed_keeps_its_score(base):
    path = base / "checkpoints/ep0-ba2-rank0.pt"
    path.unlink()
    assert placed(base, path)[0][0].batch == 2


@pytest.mark.parametrize("model", ["", "checkpoints/latest-rank0.pt"])
def test_the_score_of_a_run_is_that_of_its_end_and_it_is_said(base, model):
    points, (note,) = placed(base, base / model)
    assert points[0].batch == 10
    assert "is taken as that of the last checkpoint of base, batch 10" in note


@pytest.mark.parametrize("model", ["", "checkpoints/latest-rank0.pt"])
def test_the_latest_checkpoint_of_a_run_that_trains_is_not_guessed(base, model):
    (base / "run.json").unlink()
    with pytest.raises(StudyError, match="of a run that hasn't ended; name the checkpoint that was scored"):
        placed(base, base / model)


def test_scores_of_other_models_are_left_out_and_named(base):
    others = ("bert-base-uncased", base.parent / "other/checkpoints/ep0-ba6-rank0.pt", base / "model/x.pt")
    points, notes = placed(base, base / "checkpoints/ep0-ba6-rank0.pt", *others)
    assert len(points) == 1
    assert [note.split(" is no checkpoint of these runs")[0] for note in notes] == list(map(str, others))


def test_scores_of_other_models_alone_are_refused(base):
    with pytest.raises(
        StudyError, match=r"no score of these runs in it \(bert-base-uncased is no checkpoint"
    ):
        placed(base, "bert-base-uncased")


def test_a_checkpoint_of_another_training_in_the_folder(base):
    with pytest.raises(StudyError, match=r"ep0-ba99-rank0\.pt is of batch 99; .+base has 10 batches"):
        placed(base, base / "checkpoints/ep0-ba99-rank0.pt")


def test_checkpoints_are_evenly_spread_with_the_last():
    paths = [Path(f"ep0-ba{n}-rank0.pt") for n in range(1, 21)]
    chosen = {count: [paths.index(path) + 1 for path in spread(paths, count)] for count in (1, 4, 20, 99)}
    assert chosen == {1: [20], 4: [5, 10, 15, 20], 20: list(range(1, 21)), 99: list(range(1, 21))}
    assert spread([], 3) == []


@dataclass
class Settings:
    """As those of the GLUE study."""

    models: list[str] = field(default_factory=list)


def test_the_command_names_the_checkpoints_without_a_score(base):
    awkward = made_runs.run(base.parent / "a, b=c @d", {9: 2.0})
    made_runs.checkpoints(awkward, 9)
    points, _ = placed(base, base / "checkpoints/ep0-ba10-rank0.pt")
    words = shlex.split(command(read_all([base, awkward]), points, 2))
    assert words[:5] == ["python", "-m", "cadenza.studies.glue", "yamls/glue.yaml", words[4]]
    asked = load_settings(Settings, [], words[4:]).models
    assert asked == [
        str(base / "checkpoints/ep0-ba6-rank0.pt"),
        str(awkward / "checkpoints/ep0-ba9-rank0.pt"),
    ]


def test_there_is_no_command_where_nothing_is_to_score(base):
    points, _ = placed(base, base / "checkpoints/ep0-ba10-rank0.pt")
    assert command(read_all([base]), points, 1) is None
    assert command(read_all([made_runs.run(base.parent / "b", {9: 2.0})]), [], 5) is None, "no checkpoints"
