"""Jobs side by side: processes of their own, order, failures, and how they end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import study_jobs
import torch
from patience import PATIENCE

from cadenza.recipe import RecipeError
from cadenza.recipe.errors import Stopped
from cadenza.studies.checks import StudyError
from cadenza.studies.running import child, side_by_side
from cadenza.studies.running import slots as places
from cadenza.studies.running.side_by_side import Job, Slot, run_jobs, slots

TWO = [Slot({}), Slot({})]


def by_name(jobs, places=TWO):
    return {job.name: result for job, result in run_jobs(jobs, places)}


def test_each_job_has_a_process_of_its_own_with_the_environment_of_its_slot(tmp_path, capfd):
    log = tmp_path / "run" / "log.txt"
    jobs = [Job(n, study_jobs.facts, (n,), log=log if n == "b" else None) for n in "ab"]
    place = Slot({"OMP_NUM_THREADS": "3", "CUDA_VISIBLE_DEVICES": "7"})
    found = by_name(jobs, [place])
    assert len({os.getpid(), found["a"]["pid"], found["b"]["pid"]}) == 3
    for each in found.values():
        assert (each["OMP_NUM_THREADS"], each["CUDA_VISIBLE_DEVICES"]) == ("3", "7")
        assert not each["torch"], "the environment is there before torch is"
    assert log.read_text() == "output of b\n"
    shown = capfd.readouterr()
    assert "output of" not in shown.out + shown.err
    assert "2/2" in shown.err


def test_a_slot_has_one_job_at_a_time(tmp_path):
    found = by_name([Job(name, study_jobs.stamp, (str(tmp_path), name)) for name in "abc"], TWO[:1])
    assert found["a"][1] <= found["b"][0] <= found["b"][1] <= found["c"][0]


def test_two_slots_have_two_jobs_at_a_time(tmp_path):
    jobs = [Job(name, study_jobs.meets, (str(tmp_path), name, other)) for name, other in ("ab", "ba")]
    assert set(by_name(jobs)) == {"a", "b"}


def test_a_job_waits_for_those_it_names(tmp_path):
    jobs = [
        Job("last", study_jobs.stamp, (str(tmp_path), "last"), after=frozenset({"first", "other"})),
        Job("other", study_jobs.stamp, (str(tmp_path), "other")),
        Job("first", study_jobs.stamp, (str(tmp_path), "first")),
    ]
    found = by_name(jobs)
    assert found["last"][0] >= max(found["first"][1], found["other"][1])
    assert list(found)[-1] == "last"


def test_a_job_that_waits_for_none_is_refused_before_any_starts(tmp_path):
    jobs = [
        Job("a", study_jobs.stamp, (str(tmp_path), "a")),
        Job("b", study_jobs.stamp, (str(tmp_path), "b"), after=frozenset({"c"})),
    ]
    with pytest.raises(StudyError, match=r"^b: it waits for c, which"):
        by_name(jobs)
    circle = [Job(n, print, (), after=frozenset({m})) for n, m in ("ab", "ba")]
    with pytest.raises(StudyError, match=r"^a: it waits for b, which"):
        by_name(circle)
    with pytest.raises(ValueError, match="a name of its own"):
        by_name([jobs[0], jobs[0]])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "message"),
    [(KeyError("x"), "KeyError: 'x'"), (None, "the process ended with code 9")],
)
def test_a_failure_lets_running_jobs_finish_and_starts_none(error, message, tmp_path):
    jobs = [
        Job("bad", study_jobs.fails, (str(tmp_path), error)),
        Job("runs", study_jobs.outlasts_failure, (str(tmp_path), "runs")),
        Job("waits", study_jobs.stamp, (str(tmp_path), "waits")),
    ]
    found = run_jobs(jobs, TWO)
    assert next(found)[0].name == "runs"
    with pytest.raises(StudyError, match=f"^bad: {message}$"):
        next(found)
    assert not (tmp_path / "waits").exists()


def test_an_error_that_the_user_can_correct_is_one_line():
    assert child.line_of(RecipeError("a.yaml: data.source\nis missing")) == "a.yaml: data.source is missing"
    assert child.line_of(ValueError("no\nway")) == "ValueError: no way"


def test_an_error_names_the_log_with_its_traceback(tmp_path):
    log = tmp_path / "log.txt"
    with pytest.raises(StudyError, match=f"its output is in {log}$"):
        by_name([Job("bad", study_jobs.fails, (str(tmp_path), KeyError("x")), log=log)])
    assert "Traceback" in log.read_text()


def gone(pid):
    """Whether the process has ended; one that nobody has waited for counts."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def until(holds):
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_the_study_ends_its_processes(number, tmp_path):
    folder = Path(study_jobs.__file__).parent
    command = [sys.executable, "-m", "study_jobs", str(tmp_path)]
    study = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    until(lambda: len(list(tmp_path.glob("*.pids"))) == 2)
    pids = [pid for path in tmp_path.glob("*.pids") for pid in path.read_text().split()]
    study.send_signal(number)
    said = study.communicate(timeout=PATIENCE)[1]
    until(lambda: all(map(gone, pids)))
    stopped = "stopped: 0 of 2 jobs are done; the same command goes on with the others"
    code, last = (143, stopped) if number == signal.SIGTERM else (-number, said.splitlines()[-1])
    assert (study.returncode, said.splitlines()[-1]) == (code, last)


def test_ctrl_c_ends_the_processes_and_says_how_far_the_study_came(tmp_path, monkeypatch):
    sleep = time.sleep

    def interrupted(seconds):
        sleep(seconds)
        if (tmp_path / "long.pids").exists():
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(side_by_side.time, "sleep", interrupted)
        with pytest.raises(Stopped, match=r"^0 of 1 jobs are done; ") as stop:
            by_name([Job("long", study_jobs.waits, (str(tmp_path), "long"))])
    assert stop.value.code == 130
    until(lambda: all(map(gone, (tmp_path / "long.pids").read_text().split())))  # killed, it takes a moment


def test_closing_the_iterator_ends_the_processes(tmp_path):
    jobs = [
        Job("quick", study_jobs.stamp, (str(tmp_path), "quick")),
        Job("long", study_jobs.waits, (str(tmp_path), "long")),
    ]
    found = run_jobs(jobs, TWO)
    assert next(found)[0].name == "quick"
    until((tmp_path / "long.pids").exists)
    found.close()
    until(lambda: all(map(gone, (tmp_path / "long.pids").read_text().split())))


def test_sigterm_is_handled_as_before_when_all_is_done():
    before = signal.getsignal(signal.SIGTERM)
    seen = []
    for _ in run_jobs([Job("a", study_jobs.facts, ("a",))], TWO):
        seen.append(signal.getsignal(signal.SIGTERM))
    assert seen[0] is not before
    with pytest.raises(Stopped) as stop:
        seen[0](signal.SIGTERM, None)
    assert stop.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_slots_of_a_cpu_share_its_cores(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(places, "_cores", lambda: 7)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert slots(None) == [Slot({"OMP_NUM_THREADS": "7"})]
    assert slots(3) == [Slot({"OMP_NUM_THREADS": "2"})] * 3
    assert slots(9) == [Slot({"OMP_NUM_THREADS": "1"})] * 9
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert slots(2) == [Slot({"OMP_NUM_THREADS": "4"})] * 2


def test_slots_of_cuda_devices_are_those_that_this_process_sees(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert slots(None) == [Slot({"CUDA_VISIBLE_DEVICES": name}) for name in "01"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-3a")
    assert slots(None) == [Slot({"CUDA_VISIBLE_DEVICES": name}) for name in ("5", "GPU-3a")]
    assert slots(1) == [Slot({"CUDA_VISIBLE_DEVICES": "5"})]
    with pytest.raises(StudyError, match="processes is 3; there are 2 CUDA devices"):
        slots(3)


def test_a_launcher_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(StudyError, match="not by a launcher"):
        slots(None)
