"""The order of examples, and random numbers from a hash.

A draw is the number of an example in the whole run. Random numbers are a pure function of (key, draw,
column): the same with any number of workers, and after a resume.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from composer.utils import dist
from torch.utils.data import Dataset, DistributedSampler

from cadenza.data.ranks import show


def uniform(key: int, draws: Sequence[int] | np.ndarray, columns: int) -> np.ndarray:
    """(len(draws), columns) float64 in [0, 1)."""
    return _numbers(_keys(key, draws)[:, None], np.arange(columns))


def uniform_at(
    key: int, draws: Sequence[int] | np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """(cells,) float64 in [0, 1): what `uniform` has in these rows and columns."""
    return _numbers(_keys(key, draws)[rows], columns)


def _keys(key: int, draws: Sequence[int] | np.ndarray) -> np.ndarray:
    start = scramble(np.array([key], dtype=np.uint64))
    return scramble(start ^ scramble(np.asarray(draws).astype(np.uint64)))


def _numbers(keys: np.ndarray, columns: np.ndarray) -> np.ndarray:
    cells = scramble(keys ^ columns.astype(np.uint64))
    return (cells >> np.uint64(11)).astype(np.float64) * 2.0**-53


def scramble(x: np.ndarray) -> np.ndarray:
    """SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): one step and its finalizer, modulo 2^64."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class Drawn(Dataset):
    """A data set that is indexed by draw; Composer saves and loads how many examples an epoch has had.

    A resumed run goes on behind them at once. Without this hook Composer would load all earlier batches.
    """

    unknown_share = 0.0  # of the tokens, where they are text
    taken: int | None = 0  # examples of all ranks to pass by; None: the checkpoint doesn't say

    def __len__(self) -> int:
        raise NotImplementedError

    def state_dict(self, num_samples: int, from_beginning: bool) -> dict[str, int]:
        """What a checkpoint holds: the examples of this epoch so far, and of a whole one."""
        return {"taken": num_samples, "length": len(self)}

    def load_state_dict(self, state: dict[str, int] | None) -> None:
        """Pass by the examples of `state`. None, or the state of a stream: those that `taken` will say."""
        state = state if state is not None and "taken" in state else None
        self.taken = None if state is None else state["taken"]
        if state is not None and state["length"] != len(self):
            show(f"the data has {len(self):,} rows, {state['length']:,} at the checkpoint: another order")


class EpochSampler(DistributedSampler):
    """A `DistributedSampler` that yields draws, `epoch * len(dataset) + index`; plain indices for evaluation.

    Composer sets the epoch of evaluation samplers too, but each evaluation must use the same masks.
    """

    def __init__(self, dataset: Any, train: bool, seed: int) -> None:
        ranks = {"num_replicas": dist.get_world_size(), "rank": dist.get_global_rank()}
        super().__init__(dataset, shuffle=train, drop_last=train, seed=seed, **ranks)
        self.offset = len(dataset) if train else 0

    def __iter__(self) -> Iterator[int]:
        taken = 0
        if isinstance(self.dataset, Drawn):
            taken, self.dataset.taken = self.dataset.taken or 0, 0
        indices = islice(super().__iter__(), taken // self.num_replicas, None)
        return (self.epoch * self.offset + index for index in indices)
