"""A job's process, seen from the study: started, asked whether it has ended, ended."""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cadenza.studies.checks import StudyError
from cadenza.studies.running.slots import Slot

CHILD = "cadenza.studies.running.child"


@dataclass(frozen=True)
class Job:
    """A call that gets a process of its own.

    Args:
        name: what the progress bar and errors say.
        call: a function of a module; what it returns must be picklable.
        arguments: its arguments, picklable.
        after: the names of jobs that must be done before.
        log: the file that gets what the process prints; None: nothing is kept.
    """

    name: str
    call: Callable[..., Any]
    arguments: tuple[Any, ...]
    after: frozenset[str] = frozenset()
    log: Path | None = None


class Process:
    """The process of `job` on `slot`; `folder`, an empty one, holds what they exchange.

    It leads a group of its own, which holds the processes that it starts, and a terminal's Ctrl-C doesn't
    reach it. The end of its stdin says that the study's process is gone.
    """

    def __init__(self, job: Job, slot: Slot, folder: Path) -> None:
        self.job, self.slot, self.folder = job, slot, folder
        folder.mkdir()
        (folder / "job").write_bytes(_pickled(job))
        self.log = job.log or folder / "log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(
                [sys.executable, "-m", CHILD, str(folder)],
                env={**os.environ, **slot.environment},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self.running.poll() is not None

    def result(self) -> Any:
        """What the job's call returned.

        Raises:
            StudyError: the call raised an error, or the process ended before.
        """
        path = self.folder / "result"
        code = self.running.returncode
        problem = f"the process ended with code {code}"
        returned, found = pickle.loads(path.read_bytes()) if code == 0 else (False, problem)
        if returned:
            return found
        where = f"; its output is in {self.log}" if self.job.log else ""
        raise StudyError(f"{self.job.name}: {found}{where}")

    def kill(self) -> None:
        """End the process, and those that it has started, at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.running.pid, signal.SIGKILL)
        self.running.wait()
        if self.running.stdin:
            self.running.stdin.close()


def _pickled(job: Job) -> bytes:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    main = spec.name if spec else None
    return pickle.dumps((sys.path, main)) + pickle.dumps((job.call, job.arguments))
