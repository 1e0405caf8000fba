"""Jobs of a study side by side: each in a process of its own, one at a time on each slot."""

import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from cadenza.recipe.errors import Stopped
from cadenza.studies.checks import StudyError
from cadenza.studies.running.process import Job, Process
from cadenza.studies.running.slots import Slot, slots

__all__ = ["Job", "Slot", "run_jobs", "slots"]

PAUSE = 0.05  # seconds between looks at the processes


def run_jobs(jobs: Sequence[Job], slots: Sequence[Slot]) -> Iterator[tuple[Job, Any]]:
    """Run `jobs`; yields each with what its call returned, as they end.

    A job starts when those that it names in `after` are done. If a job fails, those that run may finish and
    nothing new starts. Ctrl-C, SIGTERM, and the end of this process by any means end all processes at once.

    Raises:
        StudyError: a job failed; the message names it and its error. Or a job waits for one that isn't there.
        Stopped: Ctrl-C or SIGTERM.
    """
    _refuse_endless(jobs)
    if not jobs:
        return  # without a bar
    with tempfile.TemporaryDirectory(prefix="cadenza-jobs-") as folder, tqdm(total=len(jobs)) as bar:
        running = Running(jobs, slots, Path(folder))
        with _signals(bar), running:
            while running.start():
                bar.set_postfix_str(", ".join(each.job.name for each in running.processes))
                for process in running.wait():
                    try:
                        result = process.result()
                    except StudyError as error:
                        running.failed = running.failed or error
                        continue
                    running.done.add(process.job.name)
                    bar.update()
                    yield process.job, result
            if running.failed:
                raise running.failed


class Running:
    """The processes that run, the jobs that wait, and the first error; leaving it ends them all."""

    def __init__(self, jobs: Sequence[Job], slots: Sequence[Slot], folder: Path) -> None:
        self.waiting, self.free, self.folder = list(jobs), list(slots), folder
        self.processes: list[Process] = []
        self.done: set[str] = set()
        self.failed: StudyError | None = None

    def start(self) -> bool:
        """Start each job that can be; False if none runs then."""
        for job in list(self.waiting):
            if self.free and not self.failed and job.after <= self.done:
                self.waiting.remove(job)
                folder = self.folder / str(len(self.waiting))
                self.processes.append(Process(job, self.free.pop(0), folder))
        return bool(self.processes)

    def wait(self) -> list[Process]:
        """The processes that have ended, when one has."""
        while not (ended := [each for each in self.processes if each.ended]):
            time.sleep(PAUSE)
        for process in ended:
            process.kill()  # what it started and left behind
            self.processes.remove(process)
            self.free.append(process.slot)
        return ended

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()


def _refuse_endless(jobs: Sequence[Job]) -> None:
    """Raise if a job waits for a job that isn't there, or that waits for it, or two have one name."""
    if len({job.name for job in jobs}) < len(jobs):
        raise ValueError("each job needs a name of its own")
    waiting, done = list(jobs), set()
    while free := [job for job in waiting if job.after <= done]:
        done |= {job.name for job in free}
        waiting = [job for job in waiting if job not in free]
    if waiting:
        names = ", ".join(sorted(waiting[0].after - done))
        raise StudyError(f"{waiting[0].name}: it waits for {names}, which can't come before it")


@contextmanager
def _signals(bar: Any) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into `Stopped`."""

    def stop(*_: object) -> None:
        raise Stopped(_message(bar), 128 + signal.SIGTERM)

    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if main else None
    try:
        yield
    except KeyboardInterrupt as error:
        raise error if isinstance(error, Stopped) else Stopped(_message(bar)) from error
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


def _message(bar: Any) -> str:
    return f"{bar.n} of {bar.total} jobs are done; the same command goes on with the others"
