"""The places of a recipe: written to before training, `~` expanded, a full disk named."""

import errno
import importlib
from pathlib import Path

import pytest

from cadenza.data import places as data_places
from cadenza.data.places import is_full, reason, why_unwritable
from cadenza.models import ModelError, export
from cadenza.recipe import RecipeError, TrainingError, load
from cadenza.recipe.run import train
from cadenza.recipe.runs import places


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_folders_are_made_and_left_empty(tmp_path):
    folder = tmp_path / "a/b"
    assert why_unwritable(folder) is None
    assert list(folder.iterdir()) == []


def test_a_file_in_the_place_of_a_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file/below"):
        assert why_unwritable(folder) == "a file stands in its place"


def test_what_the_system_says(tmp_path):
    assert why_unwritable(Path("/proc/none")) in ("No such file or directory", "Permission denied")
    assert why_unwritable(tmp_path / ("n" * 300)) == "File name too long"
    assert "null byte" in why_unwritable(tmp_path / "a\0b")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_called_that(number, tmp_path, monkeypatch):
    def full(**options):
        raise OSError(number, "text of the system")

    monkeypatch.setattr(data_places.tempfile, "TemporaryFile", full)
    assert why_unwritable(tmp_path) == "the disk is full"


def test_a_full_disk_behind_other_errors(tmp_path, monkeypatch):
    """safetensors and tokenizers hand on text; torch's writer hides the reason."""
    rust = RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    torchs = RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 576 vs 534")
    assert is_full(rust, tmp_path)
    assert not is_full(torchs, tmp_path)
    monkeypatch.setattr(data_places, "_free", lambda folder: 0)
    assert is_full(torchs, tmp_path)
    assert not is_full(RuntimeError("something else"), tmp_path)
    chained = RuntimeError("outer")
    chained.__cause__ = OSError(errno.ENOSPC, "inner")
    assert is_full(chained, tmp_path)


def test_reasons_of_other_errors(tmp_path):
    assert reason(PermissionError(errno.EACCES, "Permission denied"), tmp_path) == "Permission denied"
    assert reason(RuntimeError("two\nlines"), tmp_path) == "two lines"


@pytest.mark.parametrize(
    ("pairs", "start"),
    [
        (["train.run_folder={file}"], "train.run_folder: {file}/run can't be written to (a file stands"),
        (["train.run_folder=/proc/none"], "train.run_folder: /proc/none/run can't be written to ("),
        (["tokenizer.cache_dir={file}"], "tokenizer.cache_dir: {file} can't be written to (a file stands"),
    ],
)
def test_a_run_is_refused_before_its_data_is_read(pairs, start, tmp_path, monkeypatch):
    monkeypatch.setattr("cadenza.recipe.run.task_of", lambda recipe: pytest.fail("too late"))
    file = tmp_path / "file"
    file.write_text("x")
    common = [f"train.run_folder={tmp_path}/runs"] * (not pairs[0].startswith("train"))
    with pytest.raises(RecipeError) as error:
        train(load([], [*common, *(pair.format(file=file) for pair in pairs)]))
    assert str(error.value).startswith("command line: " + start.format(file=file))
    assert str(error.value).endswith("; name another folder")


def test_a_cache_from_the_environment_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("CADENZA_CACHE", str(tmp_path / "file"))
    with pytest.raises(RecipeError, match=r"CADENZA_CACHE: .*a file stands in its place"):
        places.prepare(load([], [f"train.run_folder={tmp_path}/runs"]))


def test_folders_of_checkpoints_are_tried_too(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/checkpoints").write_text("x")
    pairs = [f"train.run_folder={tmp_path}", f"tokenizer.cache_dir={tmp_path}/cache"]
    places.prepare(load([], pairs))
    with pytest.raises(RecipeError, match=r"\(checkpoints\): .*/run/checkpoints can't be written to"):
        places.prepare(load([], [*pairs, "train.save_interval=1ep"]))


def test_home_in_every_path(home):
    pairs = ["train.run_folder=~/runs", "train.load_path=~/a.pt", "data.source=~/t.txt"]
    pairs += ["data.eval_source=~/e.txt", "data.local=~/l", "data.remote=~/r", "tokenizer.name=~/t"]
    pairs += ["tokenizer.cache_dir=~/c", "model.pretrained=~/m", "loggers.file.filename=~/log.txt"]
    recipe = load([], pairs)
    found = [recipe.train.run_folder, recipe.train.load_path, recipe.data.source, recipe.data.eval_source]
    found += [recipe.data.local, recipe.data.remote, recipe.tokenizer.name, recipe.tokenizer.cache_dir]
    found += [recipe.model.pretrained, recipe.loggers["file"]["filename"]]
    names = ["runs", "a.pt", "t.txt", "e.txt", "l", "r", "t", "c", "m", "log.txt"]
    assert found == [f"{home}/{name}" for name in names]
    assert recipe.folder == home / "runs/run"


def test_home_in_a_list_of_sources(home):
    recipe = load([], ["data.source=[~/a.txt,b.txt,~/c]", "data.eval_source=[~/d]"])
    assert recipe.data.source == [f"{home}/a.txt", "b.txt", f"{home}/c"]
    assert recipe.data.eval_source == [f"{home}/d"]


def test_home_of_an_image_recipe_and_of_a_recipe_file(home):
    (home / "tiny.yaml").write_text("model: {objective: image_classification}\ndata: {root: ~/images}\n")
    assert load(["~/tiny.yaml"], []).data.root == f"{home}/images"


def test_what_is_no_path_is_left_alone(home):
    assert load([], ["data.domain_tag=~/x"]).data.domain_tag == "~/x"
    assert load([], ["data.source=~nobody-of-this-name/x"]).data.source == "~nobody-of-this-name/x"
    assert load([], ["data.source=a~/x"]).data.source == "a~/x"


OUTSIDE = "it must name a folder within train.run_folder"
NAMES = dict.fromkeys(["../x", "/x", "a/../b", "..", "~/x", "a//b", "a/", "-x", "a\\b"], OUTSIDE)
NAMES |= {"": "it must be a text that isn't empty", "a\nb": "it must hold printable characters alone"}


@pytest.mark.parametrize(("name", "right"), NAMES.items())
def test_a_name_stays_in_its_folder(name, right):
    with pytest.raises(RecipeError, match=f"name is .*; {right}"):
        load([], [f"name={name!r}" if "\n" not in name else 'name="a\\nb"'])


def test_an_export_is_refused_before_the_weights_are_written(tmp_path, monkeypatch):
    module = importlib.import_module("cadenza.models.export")
    state = {"timestamp": {"Timestamp": {"batch": 1, "token": 1}}}
    monkeypatch.setattr(module, "read", lambda *args: state)
    monkeypatch.setattr(module, "model_of", lambda *args: None)
    monkeypatch.setattr(module, "tokenizer_files", lambda *args: {})
    with pytest.raises(ModelError, match=r"export: /proc/none can't be written to \(.*; name another folder"):
        export(tmp_path / "a.pt", "/proc/none")


def test_a_full_disk_ends_a_run_in_a_line(tmp_path):
    def run(error):
        with places.full_disk_named(tmp_path):
            raise error

    with pytest.raises(TrainingError, match=r"x.json couldn't be written: the disk is full; make room"):
        run(OSError(errno.ENOSPC, "No space", "x.json"))
    with pytest.raises(PermissionError):
        run(PermissionError(errno.EACCES, "denied"))
    with pytest.raises(TrainingError, match="the loss is nan"):
        run(TrainingError("the loss is nan"))
