"""Checkpoints of a recipe's runs: which is the last, what a failed save says, what may be loaded."""

import os
from types import SimpleNamespace

import pytest
import torch
from torch.torch_version import TorchVersion

from cadenza.recipe import RecipeError, TrainingError, checkpoints, load, run
from cadenza.recipe.checkpoints import LATEST, latest, refuse_other_data, saving_in
from cadenza.surgery.checkpoint import read


@pytest.fixture
def saved(tmp_path):
    """Writes a checkpoint, or a part of one."""

    def saved(name, whole=True):
        path = tmp_path / name
        torch.save({"name": name}, path)
        if not whole:
            path.write_bytes(path.read_bytes()[:-40])
        return path

    return saved


@pytest.mark.parametrize(
    "names",
    [
        ["ep0-ba9-rank0.pt", "ep0-ba10-rank0.pt"],
        ["ep0-ba900-rank0.pt", "ep1-ba1000-rank0.pt"],
        ["ep9-ba90-rank0.pt", "ep10-ba91-rank0.pt"],
        ["ep0-ba4-rank0.pt", "ep1-ba4-rank0.pt"],
        ["ep9-ba12-rank0.pt", "ep10-ba12-rank0.pt"],
        ["ep0-ba8-rank0.pt", "ep0-ba9-rank0.pt", "ep0-ba10-rank0.pt", "ep0-ba11-rank0.pt"],
    ],
)
@pytest.mark.parametrize("copied", [False, True])
def test_the_latest_has_the_most_batches(names, copied, saved, tmp_path):
    """Whichever was written last: a copy of the folder may have any times."""
    paths = [saved(name) for name in names]
    for time, path in enumerate(reversed(paths) if copied else paths):
        os.utime(path, (time, time))
    assert latest(tmp_path) == paths[-1]
    assert os.readlink(tmp_path / LATEST) == names[-1], "a link that a moved folder keeps"


def test_other_files_are_no_checkpoints_of_a_run(saved, tmp_path):
    good = saved("ep0-ba2-rank0.pt")
    foreign = [
        saved(name) for name in ("ep0-ba3-rank1.pt", "ep0-bad-rank0.pt", "best.pt", "ep0-ba5-rank0.pt2")
    ]
    foreign.append(saved("epoch-ba4-rank0.pt", whole=False))
    assert latest(tmp_path) == good
    assert all(path.exists() for path in foreign)


def test_a_folder_that_is_not_there_yet_has_no_latest(tmp_path):
    assert latest(tmp_path / "no/such") is None


def test_a_link_without_a_checkpoint_is_removed(saved, tmp_path):
    """Composer would follow it."""
    part = saved("ep0-ba1-rank0.pt", whole=False)
    (tmp_path / LATEST).symlink_to(part.name)
    assert latest(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def stand_in(tmp_path, epoch, batch):
    """A file in the place of the link, as a copy that follows links makes it."""
    time = {"epoch": epoch, "batch": batch}
    torch.save({"state": {"model": {}, "timestamp": {"Timestamp": time}}}, tmp_path / LATEST)


@pytest.mark.parametrize("others", [[], ["ep0-ba7-rank0.pt"], ["ep0-ba9-rank0.pt"], ["ep2-ba12-rank0.pt"]])
def test_a_file_in_the_place_of_the_link_is_a_checkpoint(others, saved, tmp_path):
    paths = [saved(name) for name in others]
    before = [path.read_bytes() for path in paths]
    stand_in(tmp_path, 1, 11)
    last = latest(tmp_path)
    assert last.name == ("ep2-ba12-rank0.pt" if "ep2-ba12-rank0.pt" in others else "ep1-ba11-rank0.pt")
    assert os.readlink(tmp_path / LATEST) == last.name
    assert (tmp_path / "ep1-ba11-rank0.pt").is_file()
    assert [path.read_bytes() for path in paths] == before
    assert latest(tmp_path) == last


@pytest.mark.parametrize("whole", [True, False])
def test_a_copy_of_a_checkpoint_takes_the_place_of_a_part_alone(whole, saved, tmp_path):
    other = saved("ep1-ba11-rank0.pt", whole)
    content = other.read_bytes()
    stand_in(tmp_path, 1, 11)
    copy = (tmp_path / LATEST).read_bytes()
    assert latest(tmp_path) == other
    assert other.read_bytes() == (content if whole else copy)


def test_a_part_in_the_place_of_the_link_is_removed(saved, tmp_path):
    saved(LATEST, whole=False)
    assert latest(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_link_into_the_folder_that_was_copied_is_set_anew(saved, tmp_path):
    """An absolute link leads out of the copy."""
    (tmp_path / "copy").mkdir()
    there, here = saved("ep0-ba3-rank0.pt"), saved("copy/ep0-ba3-rank0.pt")
    (tmp_path / "copy" / LATEST).symlink_to(there)
    assert latest(tmp_path / "copy") == here
    assert os.readlink(tmp_path / "copy" / LATEST) == here.name


def test_another_node_may_remove_a_part_first(saved, tmp_path, monkeypatch):
    saved("ep0-ba1-rank0.pt")
    monkeypatch.setattr(checkpoints, "is_whole", lambda path: path.unlink())
    assert latest(tmp_path) is None


def test_a_link_stays_where_it_points_right(saved, tmp_path):
    one, two = saved("ep0-ba1-rank0.pt"), saved("ep0-ba2-rank0.pt")
    link = tmp_path / LATEST
    (tmp_path / "latest-rank0.new").symlink_to("left.pt")  # of a process that was killed here
    link.symlink_to(one.name)
    latest(tmp_path)
    assert os.readlink(link) == two.name
    link.unlink()
    link.symlink_to(two)
    latest(tmp_path)
    assert os.readlink(link) == str(two), "it isn't set anew"
    assert not (tmp_path / "latest-rank0.new").is_symlink()


def fail_in(folder, error, meanwhile=lambda: None):
    with saving_in(folder):
        meanwhile()
        raise error


def test_a_failed_save_names_the_last_whole_checkpoint(saved, tmp_path):
    saved("ep0-ba9-rank0.pt")
    good, part = saved("ep0-ba10-rank0.pt"), tmp_path / "ep0-ba11-rank0.pt"
    with pytest.raises(TrainingError) as stop:
        fail_in(tmp_path, OSError("disk full\nat byte 7"), lambda: saved(part.name, whole=False))
    stands = f"{good} is complete: train.autoresume=true resumes from it"
    assert str(stop.value) == f"{part} couldn't be saved (disk full at byte 7); {stands}"
    assert isinstance(stop.value.__cause__, OSError)
    assert not part.exists()


def test_a_failed_first_save_says_that_there_is_no_other(saved, tmp_path):
    with pytest.raises(TrainingError, match=r"ba1-rank0.pt couldn't be saved \(enforce\); there is no other"):
        fail_in(tmp_path, RuntimeError("enforce"), lambda: saved("ep0-ba1-rank0.pt", whole=False))


@pytest.mark.parametrize("error", [TrainingError("the loss is nan"), OSError("no data"), ValueError("wrong")])
def test_other_failures_are_not_of_saving(error, saved, tmp_path):
    """Also beside a part that an earlier run left."""
    saved("ep0-ba1-rank0.pt", whole=False)
    with pytest.raises(type(error), match=str(error)) as stop:
        fail_in(tmp_path, error, lambda: saved("ep0-ba2-rank0.pt"))
    assert stop.value is error


def test_an_earlier_runs_part_that_is_cut_again_is_a_failed_save(saved, tmp_path):
    part = saved("ep0-ba1-rank0.pt", whole=False)
    os.utime(part, (1, 1))
    with pytest.raises(TrainingError, match="couldn't be saved"):
        fail_in(tmp_path, OSError("full"), lambda: saved(part.name, whole=False))


def test_a_file_that_is_not_there_is_not_foreign(tmp_path, monkeypatch):
    """That it isn't there is said when it's read."""
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.9.1"))
    checkpoints.refuse_foreign(tmp_path / "no.pt", tmp_path / "own")


PACKED = [("SequencePacking", {"repr": "SequencePacking()"})]
UNPACKED = [("GLU", {"repr": "GLU()"})]


@pytest.mark.parametrize(
    ("algorithms", "packed", "message"),
    [
        (PACKED, True, None),
        (UNPACKED, False, None),
        (PACKED, False, "trained on packed rows; to resume, add algorithms.sequence_packing={}"),
        (UNPACKED, True, "trained on rows of one sequence; to resume, leave algorithms.sequence_packing out"),
    ],
)
def test_a_run_goes_on_with_the_same_rows(algorithms, packed, message, tmp_path, monkeypatch):
    """Read on old torch, too: where it may come from was checked before."""
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.9.1"))
    path = tmp_path / "a.pt"
    torch.save({"state": {"model": {}, "algorithms": algorithms}}, path)
    state = read(path, trusted=True)
    refuse_other_data(path, state, packed, weights_only=True)
    if message is None:
        return refuse_other_data(path, state, packed, weights_only=False)
    with pytest.raises(RecipeError) as error:
        refuse_other_data(path, state, packed, weights_only=False)
    assert str(error.value) == f"{path}: {message}"


class NoTrainer(Exception):
    """Ends a run where its Trainer would be built."""


@pytest.fixture
def looked_at(tmp_path, monkeypatch):
    """What is looked at before a recipe's Trainer is built; `last` is its last checkpoint."""

    def looked_at(*pairs, last=None):
        seen = []

        def no_trainer(*args):
            raise NoTrainer

        monkeypatch.setattr(checkpoints, "latest", lambda folder: seen.append(("latest", folder)) or last)
        for name in ("refuse_foreign", "_check"):
            monkeypatch.setattr(checkpoints, name, lambda *args, name=name: seen.append((name, *args)))
        parts = {"model": lambda: torch.nn.Linear(1, 1), "data": lambda algorithms: (None, None)}
        monkeypatch.setattr(run, "task_of", lambda recipe: SimpleNamespace(recipe=recipe, **parts))
        monkeypatch.setattr(run, "build_trainer", no_trainer)
        with pytest.raises(NoTrainer):
            run.train(load([], [f"train.run_folder={tmp_path}", "name=mine", *pairs]))
        return seen

    return looked_at


def test_a_run_that_loads_nothing_looks_at_nothing(looked_at, tmp_path):
    assert looked_at() == []
    assert looked_at("train.autoresume=true") == [("latest", tmp_path / "mine/checkpoints")]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("weights_only", [False, True])
def test_what_is_loaded_is_looked_at(packed, weights_only, looked_at, tmp_path):
    pairs = ["train.load_path=a.pt", f"train.load_weights_only={weights_only}"]
    pairs += ["algorithms.sequence_packing={}"] * packed
    asked, (name, path, recipe, *how) = looked_at(*pairs)
    assert asked == ("refuse_foreign", "a.pt", tmp_path / "mine")
    assert (name, path, recipe.name, how) == ("_check", "a.pt", "mine", [packed, weights_only])
    assert [name for name, *_ in looked_at(*pairs, "train.trust_load_path=true")] == ["_check"]


def test_a_remote_file_is_not_read(looked_at):
    assert [name for name, *_ in looked_at("train.load_path=s3://a/b.pt")] == ["refuse_foreign"]


def test_a_resume_goes_before_another_path(looked_at, tmp_path):
    pairs = "train.load_path=a.pt", "train.autoresume=true"
    own = tmp_path / "mine/checkpoints/ep0-ba1-rank0.pt"
    assert [args[0] for _, *args in looked_at(*pairs, last=own)][1:] == [own, own]
    assert [args[0] for _, *args in looked_at(*pairs)][1:] == ["a.pt", "a.pt"]


def test_a_resume_loads_everything_where_a_first_start_loads_weights_alone(looked_at, tmp_path):
    pairs = "train.load_path=a.pt", "train.autoresume=true", "train.load_weights_only=true"
    own = tmp_path / "mine/checkpoints/ep0-ba1-rank0.pt"
    assert looked_at(*pairs, last=own)[-1][-1] is False
    assert looked_at(*pairs)[-1][-1] is True
