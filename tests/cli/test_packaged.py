"""The packaged recipes: listed, copied, and named on the command line."""

import pytest
from paths import ROOT

from cadenza.cli import packaged
from cadenza.cli.errors import CommandError
from cadenza.cli.main import main
from cadenza.cli.train import parse, without_devices


def test_every_recipe_is_listed_with_what_it_is(capsys):
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = {line.split()[0]: line for line in lines if line.startswith("  ")}
    folder = ROOT / "yamls"
    files = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")}
    assert listed.keys() == files - set(packaged.STUDIES)
    assert all(len(line.split()) > 1 for line in lines if line.startswith("  "))


def test_a_copy_to_edit(tmp_path, capsys):
    assert main(["init", "scale/cpu", str(tmp_path / "mine")]) == 0
    assert (tmp_path / "mine" / "cpu.yaml").read_bytes() == (ROOT / "yamls/scale/cpu.yaml").read_bytes()
    assert f"cadenza train {tmp_path}/mine/cpu.yaml" in capsys.readouterr().out
    assert main(["init", "scale/cpu", str(tmp_path / "mine")]) == 2
    assert "cpu.yaml exists; name another folder" in capsys.readouterr().err


def test_a_copy_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["init", "bert", str(tmp_path / "file")]) == 2
    assert "bert.yaml can't be written (File exists)" in capsys.readouterr().err


def test_names_and_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert packaged.file_of("scale/cpu") == str(ROOT / "yamls/scale/cpu.yaml")
    assert packaged.file_of("mine.yaml") == "mine.yaml", "whether it exists is said where it is read"
    assert packaged.file_of("~/mine.yml").endswith("/mine.yml")
    assert not packaged.file_of("~/mine.yml").startswith("~")
    with pytest.raises(CommandError, match=r"no such file here; the packaged recipe is called 'mosaicbert'"):
        packaged.file_of("yamls/mosaicbert.yaml")
    with pytest.raises(CommandError, match=r"'cpu' is neither a .yaml file, key=value or a packaged recipe"):
        packaged.file_of("cpu")


def test_a_file_here_comes_before_a_packaged_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bert.yaml").write_text("seed: 3")
    assert packaged.file_of("bert.yaml") == "bert.yaml"


def test_devices_are_for_the_launcher_alone():
    arguments = ["-n", "2", "mosaicbert", "--dry-run", "seed=3"]
    assert parse(arguments).devices == 2
    assert without_devices(arguments) == ["mosaicbert", "--dry-run", "seed=3"]
    assert parse(without_devices(arguments)).devices is None
