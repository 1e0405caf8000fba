"""Calls of jobs that run side by side, and a study that makes them: what they do shows in files."""

import os
import subprocess
import sys
import time
from pathlib import Path


def facts(name):
    """What the process of a job sees."""
    print(f"output of {name}")
    environment = {key: os.environ.get(key) for key in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}
    return {"pid": os.getpid(), "torch": "torch" in sys.modules, **environment}


def stamp(folder, name):
    """Write a file; when the job began and ended."""
    began = time.monotonic()
    (Path(folder) / name).write_text("done")
    time.sleep(0.1)
    return began, time.monotonic()


def meets(folder, name, other):
    """Wait until `other` runs as well."""
    (Path(folder) / name).write_text("here")
    while not (Path(folder) / other).exists():
        time.sleep(0.05)


def fails(folder, error):
    """Raise `error`, or end at once without one."""
    (Path(folder) / "failing").write_text(str(os.getpid()))
    if error is None:
        os._exit(9)
    raise error


def outlasts_failure(folder, name):
    """Return when the study has seen that the process of `fails` ended."""
    failing = Path(folder) / "failing"
    while not failing.exists() or Path(f"/proc/{failing.read_text() or 1}").exists():
        time.sleep(0.05)
    (Path(folder) / name).write_text("done")


def waits(folder, name):
    """Start a process of its own, name both, and wait."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (Path(folder) / f"{name}.pids.new").write_text(f"{os.getpid()} {child.pid}")
    (Path(folder) / f"{name}.pids.new").rename(Path(folder) / f"{name}.pids")
    time.sleep(600)


if __name__ == "__main__":
    from cadenza.studies.checks import guarded
    from cadenza.studies.running.side_by_side import Job, Slot, run_jobs

    jobs = [Job(name, waits, (sys.argv[1], name)) for name in ("one", "two")]
    sys.exit(guarded(lambda: list(run_jobs(jobs, [Slot({}), Slot({})]))))
