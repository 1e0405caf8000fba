"""The bytes of a model's tensors, and the peak of a block's."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def weight_bytes(model: Any) -> int:
    """The bytes of parameters and buffers; a tied one counts once."""
    unique = {id(t): t for t in (*model.parameters(), *model.buffers())}
    return sum(tensor.nbytes for tensor in unique.values())


@contextmanager
def peak_bytes(device: torch.device, found: list[int]) -> Iterator[None]:
    """Append to `found` the peak of the block's additional bytes (on Linux or CUDA; otherwise -1)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield
        found.append(torch.cuda.max_memory_allocated(device) - before)
        return
    before = _reset_resident()
    yield
    found.append(_resident("VmHWM") - before if before >= 0 else -1)


def _reset_resident() -> int:
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # memory that the allocator keeps would hide the peak
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # resets the high-water mark
    except OSError:
        return -1
    return _resident("VmRSS")


def _resident(key: str) -> int:
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(key))
    return int(line.split()[1]) * 1024
