"""train.py and `cadenza train`: files and pairs, errors that end in exit code 2, what is kept quiet."""

import logging
import os
import warnings
from pathlib import Path

import pytest
from paths import ROOT

import cadenza.models
import cadenza.recipe
from cadenza.data import DataError
from cadenza.models import ModelError
from cadenza.recipe import RecipeError, TrainingError, run
from cadenza.recipe.memory import shown
from cadenza.surgery import CheckpointError, SurgeryError


@pytest.fixture(autouse=True)
def _global_settings(monkeypatch):
    """What `quiet` sets, as it was."""
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("TRANSFORMERS_VERBOSITY", raising=False)
    with warnings.catch_warnings():
        yield


@pytest.fixture
def asked(monkeypatch):
    """What a command loads, trains and tries out."""
    seen, counts = [], {"stock": 1234567, "after_surgery": 89}
    monkeypatch.setattr(cadenza.recipe, "load", lambda files, pairs: seen.append((files, pairs)) or "recipe")
    monkeypatch.setattr(cadenza.recipe, "resolved", lambda recipe: f"all of {recipe}")
    monkeypatch.setattr(run, "train", lambda recipe: seen.append(f"train {recipe}") or "runs/run.json")
    monkeypatch.setattr(
        run, "dry_run", lambda recipe: seen.append(f"dry run of {recipe}") or (["one", "two"], counts)
    )
    monkeypatch.setattr(shown, "show_memory", lambda *asked: print("memory of", *asked))
    monkeypatch.setattr(shown, "refuse_too_large", lambda found: None)
    return seen


def test_files_and_pairs(main, asked, capsys):
    arguments = ["a=1", "x.yaml", "data.source=c.yaml", "y.yml", "train.load_path=d.yml", "scale/cpu"]
    assert main(arguments) == 0
    pairs = ["a=1", "data.source=c.yaml", "train.load_path=d.yml"]
    assert asked == [(["x.yaml", "y.yml", str(ROOT / "yamls/scale/cpu.yaml")], pairs), "train recipe"]
    assert capsys.readouterr().out == "record: runs/run.json\n"


@pytest.mark.parametrize("word", ["seed", "zyaml", "cpu"])
def test_other_words_are_no_recipe(word, main, asked, capsys):
    assert main(["x.yaml", word]) == 2
    assert f"{word!r} is neither a .yaml file, key=value or a packaged recipe" in capsys.readouterr().err
    assert asked == []


def test_other_ranks_have_no_record(main, asked, capsys, monkeypatch):
    monkeypatch.setattr(run, "train", lambda recipe: None)
    assert main(["x.yaml"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_dry_run_trains_nothing(at, main, asked, capsys):
    arguments = ["x.yaml", "a=1"]
    arguments.insert(at, "--dry-run")
    assert main(arguments) == 0
    assert asked == [(["x.yaml"], ["a=1"]), "dry run of recipe"]
    said = (
        "all of recipe\nmemory of recipe None None\none\ntwo\nparameters: 1,234,567 stock, 89 after surgery\n"
    )
    assert capsys.readouterr().out == said


def test_without_a_file_there_is_no_recipe(main, asked, capsys):
    for arguments in ([], ["seed=3"], ["data.source=a.yaml"], ["--dry-run"]):
        assert main(arguments) == 2
        said = "error: no recipe: name a .yaml file or a packaged recipe, such as mosaicbert\n"
        assert capsys.readouterr().err == said
    assert asked == []


USERS = [RecipeError, DataError, ModelError, SurgeryError, CheckpointError, TrainingError]


@pytest.mark.parametrize("error", USERS)
@pytest.mark.parametrize("command", [["x.yaml"], ["x.yaml", "--dry-run"], ["export", "a.pt", "b"]])
def test_errors_that_a_user_can_mend_are_a_line_and_exit_code_two(
    error,
    command,
    main,
    asked,
    capsys,
    monkeypatch,
):
    def fails(*args):
        raise error("wrong:\n  this\tand   that")

    for module, name in ((run, "train"), (run, "dry_run"), (cadenza.models, "export")):
        monkeypatch.setattr(module, name, fails)
    assert main(command) == 2
    assert capsys.readouterr().err == "error: wrong: this and that\n"


@pytest.mark.parametrize("error", [ValueError, RuntimeError, KeyError])
def test_other_errors_are_shown_whole(error, main, asked, monkeypatch):
    def fails(recipe):
        raise error("ours")

    monkeypatch.setattr(run, "train", fails)
    with pytest.raises(error, match="ours"):
        main(["x.yaml"])


@pytest.mark.parametrize(
    ("more", "given"),
    [
        ([], (False, False, None, None)),
        (["--trust"], (True, False, None, None)),
        (["--merge", "--onto", "quantized"], (False, True, "quantized", None)),
        (["--format", "bitsandbytes"], (False, False, None, "bitsandbytes")),
    ],
)
def test_export(more, given, main, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(cadenza.models, "export", lambda *args: seen.append(args) or "there")
    assert main(["export", "a.pt", "b", *more]) == 0
    assert seen == [(Path("a.pt"), Path("b"), *given)]
    assert capsys.readouterr().out == "exported: there\n"


@pytest.mark.parametrize("option", ["--merge", "--onto=full", "--format=bitsandbytes"])
def test_options_of_folders_are_not_of_onnx_files(option, main, capsys):
    assert main(["export", "a.pt", "b.onnx", option]) == 2
    assert f"{option.partition('=')[0]} is an option of a folder" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--tolerance=0.1", "--sums=int8"])
def test_options_of_onnx_files_are_not_of_folders(option, main, capsys):
    assert main(["export", "a.pt", "b", option]) == 2
    assert f"{option.partition('=')[0]} is an option of a .onnx file" in capsys.readouterr().err


def test_export_is_the_first_word(main, asked, capsys):
    assert main(["x.yaml", "export"]) == 2
    assert "'export' is neither a .yaml file" in capsys.readouterr().err
    for arguments in (["export"], ["export", "a.pt"], ["--no-such"], ["export", "a.pt", "b", "c"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
    with pytest.raises(SystemExit) as stop:
        main(["export", "--help"])
    assert stop.value.code == 0
    assert "usage: cadenza export" in capsys.readouterr().out


@pytest.mark.parametrize(("rank", "waits"), [(None, []), ("0", []), ("1", [20]), ("7", [20])])
def test_the_first_rank_speaks_first(rank, waits, main, capsys, monkeypatch):
    waited = []
    monkeypatch.setattr("time.sleep", lambda seconds: waited.append((seconds, capsys.readouterr().err)))
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert main([]) == 2
    assert waited == [(seconds, "") for seconds in waits]
    assert capsys.readouterr().err.startswith("error: no recipe")


def test_our_own_warnings_are_a_line_and_libraries_are_quiet(main, asked, capsys):
    assert main(["x.yaml"]) == 0
    quiet = [
        (FutureWarning, "old"),
        (DeprecationWarning, "older"),
        (UserWarning, "Cannot split tensor of length 3 into batches"),
    ]
    loud = [(UserWarning, "Cannot split a tensor"), (RuntimeWarning, "the mask was left out")]
    with warnings.catch_warnings(record=True) as heard:
        for category, text in [*quiet, *loud]:
            warnings.warn(text, category, stacklevel=1)
    assert [(each.category, str(each.message)) for each in heard] == loud
    assert warnings.formatwarning("the mask", UserWarning, "file.py", 3) == "warning: the mask\n"
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "error", "read when transformers is imported"
    assert not logging.getLogger("bitsandbytes.backends.cpu.ops").isEnabledFor(logging.WARNING)


def test_tokenizers_fork_quietly_unless_a_user_wants_it(main, asked, monkeypatch):
    main(["x.yaml"])
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
    monkeypatch.delenv("TOKENIZERS_PARALLELISM")
    main(["x.yaml"])
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"
