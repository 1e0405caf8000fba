"""A study in cells: a CSV that grows by a row a cell, so that a run that was stopped goes on."""

import csv
import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cadenza.studies.report import Row


def done(path: Path) -> list[Row]:
    """The whole rows in `path`, all values as text."""
    return list(csv.DictReader(_whole(path).decode().splitlines()))


def append(path: Path, row: Row) -> None:
    """Write `row` to the end of `path`, in place of one that was cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = _whole(path)
    with path.open("ab") as file:
        file.truncate(len(whole))
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if not whole:
            writer.writeheader()
        writer.writerow(row)


def _whole(path: Path) -> bytes:
    """The lines in `path` that were written to their ends."""
    content = path.read_bytes() if path.is_file() else b""
    return content[: content.rfind(b"\n") + 1]


def fingerprint(settings: Any, names: tuple[str, ...]) -> str:
    """A name for what a cell depends on beside its keys: the fields `names` of the dataclass `settings`."""
    shared = {key: value for key, value in asdict(settings).items() if key in names}
    return hashlib.sha256(json.dumps(shared).encode()).hexdigest()[:12]


def play(arguments: list[str], cls: Any, document: str | None, study: Callable[[Any], None]) -> int:
    """The command line of a study, FILES.yaml and key=value pairs for the fields of `cls`; the exit code."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(f"{document}\nsettings: {cls.__doc__}")
        return 0
    from cadenza.data import DataError
    from cadenza.models import ModelError
    from cadenza.recipe import RecipeError, TrainingError, load_settings
    from cadenza.surgery import SurgeryError

    files = [a for a in arguments if a.endswith((".yaml", ".yml")) and "=" not in a]
    try:
        study(load_settings(cls, files, [a for a in arguments if a not in files]))
    except (RecipeError, DataError, ModelError, SurgeryError, TrainingError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
