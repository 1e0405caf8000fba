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
    for file in files(path):
        with file.open("rb") as content:
            found.update(hashlib.file_digest(content, "sha256").digest())
    return found.hexdigest()


def files(path: Path, where: str = "models") -> list[Path]:
    """The files of weights that `path` means; an error begins with `where`.

    Raises:
        StudyError: there are none.
    """
    found = held_in(path) or path
    held = [found] if found.is_file() else sorted(file for kind in FILES for file in found.glob(kind))
    if not held:
        raise StudyError(f"{where}: {path} holds neither weights nor a run's checkpoints")
    return held
