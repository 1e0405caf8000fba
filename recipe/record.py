"""The record of a run, `run.json`: its recipe, versions, techniques and results."""

import json
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from composer.core import State
from composer.utils import dist

FILE = "run.json"
ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("cadenza", "mosaicml", "torch", "transformers", "tokenizers", "datasets", "numpy")


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that affect a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def devices(kind: str) -> dict[str, Any]:
    """What a run trains on: hours of runs mean the same on the same devices alone."""
    name = {"name": torch.cuda.get_device_name()} if kind == "gpu" else {}
    return {"kind": kind, **name, "world_size": dist.get_world_size()}


def write(folder: Path, record: dict[str, Any]) -> Path:
    """Write `record` to `folder/run.json`; an earlier record is renamed to its own date."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    set_aside(path)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(record, indent=2) + "\n")
    temporary.rename(path)
    return path


def set_aside(path: Path) -> None:
    """Rename the file at `path`, if there is one, to its own date: `run-20260131-120000.json`."""
    if path.exists():
        date = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        path.rename(path.with_name(f"{path.stem}-{date:%Y%m%d-%H%M%S}{path.suffix}"))


def commit(root: Path = ROOT) -> str:
    """The git commit of the checkout that runs, with `-dirty` if files were changed; else the version."""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        inside = (root / ".git").exists()
        done = subprocess.run(command, capture_output=True, text=True, check=True) if inside else None
    except (OSError, subprocess.CalledProcessError):
        done = None
    return done.stdout.strip() if done is not None else versions()["cadenza"]


def real_tokens_per_second(state: State) -> float:
    """Tokens without padding per second of training, over all devices; evaluation time doesn't count."""
    seconds = state.timestamp.total_wct.total_seconds()
    return state.timestamp.token.value / seconds if seconds else 0.0


def samples_per_second(state: State) -> float:
    """Samples per second of training, over all devices; evaluation time doesn't count."""
    seconds = state.timestamp.total_wct.total_seconds()
    return state.timestamp.sample.value / seconds if seconds else 0.0
