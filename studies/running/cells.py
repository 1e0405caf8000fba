"""A study in cells: each finished cell appends a row to a CSV file, so that a stopped run can resume."""

import csv
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from cadenza.options import declared
from cadenza.recipe import load_settings
from cadenza.studies.checks import guarded
from cadenza.studies.report import Row


def done(path: Path) -> list[Row]:
    """The complete rows in `path`; all values are text."""
    return list(csv.DictReader(_complete(path).decode().splitlines()))


def append(path: Path, row: Row) -> None:
    """Append `row` to `path`, and remove an incomplete last row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    complete = _complete(path)
    with path.open("ab") as file:
        file.truncate(len(complete))
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if not complete:
            writer.writeheader()
        writer.writerow(row)


def _complete(path: Path) -> bytes:
    """The lines in `path` that end with a newline."""
    content = path.read_bytes() if path.is_file() else b""
    return content[: content.rfind(b"\n") + 1]


def fingerprint(settings: Any, names: tuple[str, ...]) -> str:
    """A hash of the fields `names` of the dataclass `settings`: what a cell depends on beside its keys."""
    shared = {key: value for key, value in asdict(settings).items() if key in names}
    return hashlib.sha256(json.dumps(shared).encode()).hexdigest()[:12]


def _options(cls: Any) -> str:
    """A line for each field of the dataclass `cls` that declares a meaning."""
    lines = ((field.name, declared(field)) for field in fields(cls))
    return "".join(f"\n  {name}: {option.meaning}" for name, option in lines if option.meaning)


def command_line(arguments: list[str], cls: Any, document: str | None, study: Callable[[Any], None]) -> int:
    """Run `study` with settings of class `cls` from YAML files and key=value pairs; returns the exit code."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(f"{document}\nsettings: {cls.__doc__}{_options(cls)}")
        return 0
    files = [a for a in arguments if a.endswith((".yaml", ".yml")) and "=" not in a]
    pairs = [a for a in arguments if a not in files]
    return guarded(lambda: study(load_settings(cls, files, pairs)))
