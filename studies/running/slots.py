"""The devices of this machine that a study's jobs run on side by side."""

import os
from dataclasses import dataclass

import torch

from cadenza.studies.checks import StudyError

VISIBLE, THREADS = "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"


@dataclass(frozen=True)
class Slot:
    """A place for one job at a time: what its process's environment has beside this process's."""

    environment: dict[str, str]


def slots(processes: int | None) -> list[Slot]:
    """A slot for each CUDA device; on a CPU `processes`, which share its cores.

    Args:
        processes: how many jobs run at a time. None: one on each CUDA device, and one on a CPU.

    Raises:
        StudyError: more jobs than CUDA devices, or a launcher such as torchrun started this process.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise StudyError("a study starts its own processes; start it with python, not by a launcher")
    if torch.cuda.is_available():
        return _on_devices(torch.cuda.device_count(), processes)
    threads = max(1, _cores() // (processes or 1))
    own = {THREADS: os.environ.get(THREADS, str(threads))}
    return [Slot(own) for _ in range(processes or 1)]


def _on_devices(count: int, processes: int | None) -> list[Slot]:
    if processes is not None and processes > count:
        raise StudyError(f"processes is {processes}; there are {count} CUDA devices, one for each process")
    visible = os.environ.get(VISIBLE) or ",".join(map(str, range(count)))
    return [Slot({VISIBLE: name}) for name in visible.split(",")[: processes or count]]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
