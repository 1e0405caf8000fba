"""A run or a checkpoint as a Hugging Face folder: exported once, and kept under `$CADENZA_CACHE`."""

import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

from cadenza.data.places import cache_folder, home, why_unwritable
from cadenza.data.ranks import once_a_node
from cadenza.data.text.prepared.key import key_of
from cadenza.models.errors import ModelError
from cadenza.models.export import export

KEPT = 16  # folders, those used last: the models of a study that runs on several devices, and more
LATEST = "checkpoints/latest-rank0.pt"
CONFIG = "config.json"
FINAL = "model"  # where the run of a text classifier writes it


def model_folder(name: str, trusted: bool = False) -> str:
    """The folder of the model that `name` means: a checkpoint, a run, or what transformers knows by it.

    Args:
        trusted: read a checkpoint even with torch before 2.10, where a file can make torch run code.

    Raises:
        CheckpointError: the checkpoint can't be read.
        ModelError: the run has neither a checkpoint nor a model, or the checkpoint holds another model.
    """
    path = home(name)
    found = held_in(path)
    if found is None and (path / "recipe.yaml").is_file():
        right = "train it with train.save_interval set"
        raise ModelError(f"model.pretrained: the run {name} has no checkpoint to start from; {right}")
    if found is None or (found == path and path.suffix != ".pt"):
        return name
    return str(found) if found.is_dir() else _kept(found, trusted)


def held_in(path: Path) -> Path | None:
    """Where the weights are that `path` means: a checkpoint, or a Hugging Face folder; None: in neither.

    Of a run it is the latest checkpoint or, of a text classifier without one, the model that it wrote.
    """
    if path.suffix == ".pt" or (path / CONFIG).is_file():
        return path
    if (path / LATEST).is_file():
        return (path / LATEST).resolve()
    return path / FINAL if (path / FINAL / CONFIG).is_file() else None


def _kept(checkpoint: Path, trusted: bool) -> str:
    """The folder that `checkpoint` is exported to, made on each node if it isn't there."""
    if not checkpoint.is_file():
        raise ModelError(f"model.pretrained: there is no checkpoint {checkpoint}")
    stat = checkpoint.stat()
    made_of = [str(checkpoint.resolve()), stat.st_size, stat.st_mtime_ns, version("cadenza")]
    run = checkpoint.resolve().parent.parent.name
    folder = cache_folder() / "exported" / f"{run}-{checkpoint.stem}-{key_of({'checkpoint': made_of})}"
    once_a_node(lambda: _export(checkpoint, folder, trusted))
    return str(folder)


def _export(checkpoint: Path, folder: Path, trusted: bool) -> None:
    """Write whole or not at all, so that another process never reads half a model."""
    if folder.is_dir():
        return os.utime(folder)
    if why := why_unwritable(folder.parent):
        raise ModelError(f"CADENZA_CACHE: {folder.parent} can't be written to ({why}); name another folder")
    temporary = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        export(checkpoint, temporary, trusted)
        if not (temporary / CONFIG).is_file():
            right = "export it first, adapters with --merge"
            raise ModelError(f"model.pretrained: {checkpoint} holds no whole Hugging Face model; {right}")
        os.rename(temporary, folder)
        _forget(folder.parent)
    except OSError:
        if not folder.is_dir():  # else another process was first
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _forget(exported: Path) -> None:
    """Remove the folders that were used longest ago, beyond `KEPT`."""
    folders = sorted(exported.glob("*-rank0-*"), key=lambda path: path.stat().st_mtime)
    for folder in folders[:-KEPT]:
        shutil.rmtree(folder, ignore_errors=True)
