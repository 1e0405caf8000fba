"""The record of a run: `run.json`, with what was played and what came of it."""

import json
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("cadenza", "mosaicml", "torch", "transformers", "tokenizers", "datasets", "numpy")


def versions() -> dict[str, str]:
    """Python's version and those of the packages that shape a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def write(folder: Path, record: dict[str, Any]) -> Path:
    """Write `record` to `folder/run.json`; an earlier record is kept under its own date."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.json"
    if path.exists():
        date = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        path.rename(folder / f"run-{date:%Y%m%d-%H%M%S}.json")
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(record, indent=2) + "\n")
    temporary.rename(path)
    return path
