"""The order of examples, and random numbers from a hash.

A draw is the number of an example in the whole run. Random numbers are a pure function of (key, draw,
column): the same with any number of workers, and after a resume.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from composer.utils import dist
from torch.utils.data import DistributedSampler


def uniform(key: int, draws: Sequence[int] | np.ndarray, columns: int) -> np.ndarray:
    """(len(draws), columns) float64 in [0, 1)."""
    start = scramble(np.array([key], dtype=np.uint64))
    rows = scramble(start ^ scramble(np.asarray(draws).astype(np.uint64)))
    cells = scramble(rows[:, None] ^ np.arange(columns, dtype=np.uint64))
    return (cells >> np.uint64(11)).astype(np.float64) * 2.0**-53


def scramble(x: np.ndarray) -> np.ndarray:
    """SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): one step and its finalizer, modulo 2^64."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class EpochSampler(DistributedSampler):
    """A `DistributedSampler` that yields draws, `epoch * len(dataset) + index`; plain indices for evaluation.

    Composer sets the epoch of evaluation samplers too, but each evaluation must use the same masks.
    """

    def __init__(self, dataset: Any, train: bool, seed: int) -> None:
        ranks = {"num_replicas": dist.get_world_size(), "rank": dist.get_global_rank()}
        super().__init__(dataset, shuffle=train, drop_last=train, seed=seed, **ranks)
        self.offset = len(dataset) if train else 0

    def __iter__(self) -> Iterator[int]:
        return (self.epoch * self.offset + index for index in super().__iter__())
