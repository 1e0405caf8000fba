"""Masks of dropout on a CPU: torch's random numbers, and 16-bit pieces of them, in CPU time.

`OMP_NUM_THREADS=1 python benchmarks/cpu/bench_dropout.py` prints both. The pieces aren't used: their draws
aren't those of torch's dropout.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

SHAPE, SHARE, ROUNDS = (1900, 128), 0.1, 60


def bernoulli() -> Tensor:
    """What dropout keeps, as torch draws it."""
    return torch.empty(SHAPE).bernoulli_(1 - SHARE)


def pieces() -> Tensor:
    """The same from 16 bits an element; the share is off by less than 2^-16."""
    count = SHAPE[0] * SHAPE[1]
    words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    return words.view(torch.int16)[:count].view(SHAPE) >= round(SHARE * 2**16) - 2**15


def milliseconds(make: Callable[[], Tensor]) -> float:
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        make()
        times.append(time.process_time() - start)
    return 1000 * statistics.median(times)


if __name__ == "__main__":
    for make in (bernoulli, pieces):
        took, kept = milliseconds(make), float(make().float().mean())
        print(f"{make.__name__}: {took:.2f} ms for {SHAPE[0] * SHAPE[1]:,} elements, keeps {kept:.3f}")
