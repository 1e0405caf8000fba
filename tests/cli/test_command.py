"""The `cadenza` command: its commands, its errors, and what it imports before it has to."""

import subprocess
import sys

import pytest
from paths import ROOT

from cadenza.cli.errors import CommandError, fail, nearest
from cadenza.cli.main import COMMANDS, main
from cadenza.surgery import SurgeryError


def test_help_lists_the_commands(capsys):
    for arguments in ([], ["--help"], ["-h"]):
        assert main(arguments) == 0
        out = capsys.readouterr().out
        assert all(f"  {name} " in out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"usage: cadenza {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "error: cadenza has no command 'trian'; did you mean 'train'?"),
        (["train"], "error: no recipe: name a .yaml file or a packaged recipe, such as mosaicbert"),
        (["train", "mosaicbret"], "a packaged recipe; did you mean 'mosaicbert'?"),
        (["train", "yamls/nowhere/../mosaicbert"], "'yamls/nowhere/../mosaicbert' is neither a .yaml file"),
        (["train", "-n", "0", "mosaicbert"], "error: train: -n is 0; it must be the number of devices"),
        (["train", "-n", "0", "mosaicbert", "--dry-run"], "error: train: -n is 0; it must be the number"),
        (
            ["train", "mosaicbert", "--dry-run", "--device-memory", "-80"],
            "error: train: --device-memory is -80; it must be the GiB of a device, above zero",
        ),
        (
            ["train", "mosaicbert", "--device-memory", "80"],
            "error: train: --device-memory is 80; it is compared by --dry-run alone",
        ),
        (["init", "bertt"], "error: no packaged recipe is called 'bertt'; did you mean 'bert'?"),
        (["keys", "trian"], "error: keys: there is no section 'trian'; did you mean 'train'?"),
        (
            ["evaluate", "no/run"],
            "there is no no/run/checkpoints/latest-rank0.pt; name a run",
        ),
        (["export", "no.pt", "x"], "error: no.pt"),
    ],
)
def test_an_error_is_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_a_fault_of_the_program_keeps_its_traceback(monkeypatch):
    from cadenza.cli import recipes

    def broken(arguments):
        raise KeyError("of the program")

    monkeypatch.setattr(recipes, "run", broken)
    with pytest.raises(KeyError):
        main(["recipes"])


def test_errors_of_every_layer_are_told(monkeypatch, capsys):
    from cadenza.cli import recipes

    def refused(arguments):
        raise SurgeryError("of\n a surgery")

    monkeypatch.setattr(recipes, "run", refused)
    assert main(["recipes"]) == 2
    assert capsys.readouterr().err == "error: of a surgery\n"
    assert fail("two\nlines") == 2
    assert issubclass(CommandError, ValueError)
    assert nearest("x", ["a", "b"]) == "known: a, b"


def test_nothing_heavy_is_imported_for_lists_and_help():
    code = (
        "import sys; from cadenza.cli.main import main\n"
        "for command in (['--help'], ['recipes'], ['keys']): assert main(command) == 0\n"
        "heavy = {'torch', 'transformers', 'composer', 'numpy', 'omegaconf'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT)


def test_the_package_is_a_command_too():
    done = subprocess.run([sys.executable, "-m", "cadenza", "recipes"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "mosaicbert" in done.stdout
