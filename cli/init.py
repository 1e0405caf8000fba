"""`cadenza init`: a copy of a packaged recipe to edit."""

import argparse
import shutil
from pathlib import Path

from cadenza.cli.errors import CommandError
from cadenza.cli.packaged import path_of


def run(arguments: list[str]) -> int:
    """Copy a recipe."""
    parser = argparse.ArgumentParser(prog="cadenza init", description="Copy a packaged recipe to edit it.")
    parser.add_argument("name", help="one that `cadenza recipes` lists, such as mosaicbert or scale/cpu")
    parser.add_argument("folder", nargs="?", default=".", help="created if it doesn't exist; default: here")
    options = parser.parse_args(arguments)
    target = copied(options.name, Path(options.folder).expanduser())
    print(f"written: {target}\nedit it, then: cadenza train {target}")
    return 0


def copied(name: str, folder: Path) -> Path:
    """The copy of the packaged recipe `name` in `folder`.

    Raises:
        CommandError: there is no such recipe, the folder can't be written, or the file exists.
    """
    source = path_of(name)
    target = folder / source.name
    if target.exists():
        raise CommandError(f"init: {target} exists; name another folder, or remove it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    except OSError as error:
        raise CommandError(f"init: {target} can't be written ({error.strerror})") from error
    return target
