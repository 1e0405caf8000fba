"""One study at a time in a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cadenza.data.places import why_unwritable
from cadenza.studies.checks import StudyError


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Raise `StudyError` if a study writes to `folder`, or none can; a killed one leaves no lock."""
    if why := why_unwritable(folder):
        raise StudyError(f"out: {folder} can't be written to ({why}); name another folder")
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise StudyError(f"out: another study runs in {folder}; wait for it, or name another") from error
