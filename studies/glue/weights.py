"""Which weights a model's name means now: a folder may get other ones later."""

import hashlib
from pathlib import Path

from cadenza.models.pretrained import held_in
from cadenza.studies.checks import StudyError

FILES = ("*.safetensors", "*.bin", "*.pt")


def digest(model: str) -> str:
    """A hash of the weights in a file, a folder or a run's latest checkpoint; empty for a name on the Hub.

    Raises:
        StudyError: there is no such path, or no weights are in it.
    """
    path = Path(model).expanduser()
    if not path.exists():
        if model.startswith((".", "/", "~")) or model.endswith(".pt"):
            raise StudyError(f"models: there is no {model}")
        return ""
    found = hashlib.sha256()
    for file in _files(path):
        with file.open("rb") as content:
            found.update(hashlib.file_digest(content, "sha256").digest())
    return found.hexdigest()


def _files(path: Path) -> list[Path]:
    found = held_in(path) or path
    files = [found] if found.is_file() else sorted(file for kind in FILES for file in found.glob(kind))
    if not files:
        raise StudyError(f"models: {path} holds neither weights nor a run's checkpoints")
    return files
