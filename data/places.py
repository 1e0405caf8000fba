"""Folders that are written to: tried before anything is computed; and what a full disk looks like."""

import errno
import os
import shutil
import tempfile
from pathlib import Path

PROBE = b"\0" * 4096  # a block: an empty file needs no space
FULL = (errno.ENOSPC, errno.EDQUOT)
TEXT = ("No space left on device", "Disk quota exceeded")  # as libraries written in Rust hand it on
LEFT = 1 << 20  # bytes that may be free on a disk on which a checkpoint was cut off


def home(path: str | Path) -> Path:
    """`path` with `~` replaced by the home folder; unchanged if there is no such home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def why_unwritable(folder: Path) -> str | None:
    """Why no file can be written in `folder`, which is made if it's missing; None if one can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
            probe.write(PROBE)
    except (OSError, ValueError) as error:
        return reason(error, folder)
    return None


def reason(error: Exception, folder: Path) -> str:
    """Why writing to `folder` failed, in a few words: `the disk is full`, or what the system says."""
    if is_full(error, folder):
        return "the disk is full"
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "a file stands in its place"
    text = error.strerror if isinstance(error, OSError) else None
    return text or " ".join(str(error).split())


def is_full(error: BaseException, folder: Path) -> bool:
    """Whether `error`, or an error that caused it, came of a full disk under `folder`.

    torch's writer of files hides the reason; so the free space is looked at.
    """
    found: BaseException | None = error
    while found is not None:
        if getattr(found, "errno", None) in FULL or any(text in str(found) for text in TEXT):
            return True
        if isinstance(found, RuntimeError) and "inline_container" in str(found):
            return _free(folder) < LEFT
        found = found.__cause__ or found.__context__
    return False


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def cache_folder(chosen: str | None = None) -> Path:
    """Where prepared data is kept: `chosen`, else `$CADENZA_CACHE`, else `~/.cache/cadenza`."""
    return home(chosen or os.environ.get("CADENZA_CACHE") or "~/.cache/cadenza")
