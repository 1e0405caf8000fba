"""Batches whose size grows over a run.

1. A `Growth` says how many rows of all devices the batch with a number in the run has: a pure function.
2. `GrowingLoader` draws that many rows of its sampler for each batch, from the batch that a pass begins with.
3. So the rows come in the same order as in batches of one size, and a resume needs the number alone.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import count, islice
from typing import Any

from composer.utils import dist
from torch.utils.data import DataLoader


@dataclass(frozen=True)
class Level:
    """A size of batches: the first batch of this size, the rows of all batches before it, and the size."""

    batch: int
    row: int
    size: int


@dataclass(frozen=True)
class Growth:
    """The sizes of batches, in rows of all devices: `initial`, then `step` more at equal intervals.

    Args:
        initial: the size of the first batch.
        full: the size from `until` on.
        step: by how much the size grows at a time; the last growth may be less.
        until: the batches, or the rows, before the first batch of the full size.
        by_rows: whether `until` counts rows.
    """

    initial: int
    full: int
    step: int
    until: int
    by_rows: bool = False

    @cached_property
    def levels(self) -> list[Level]:
        """Each size in its turn; a level may have no batch, where the next one begins at once."""
        found = [Level(0, 0, self.initial)]
        times = -(-(self.full - self.initial) // self.step)
        for number in range(1, times + 1):
            now, end = found[-1], -(-self.until * number // times)
            left = -(-(end - now.row) // now.size) if self.by_rows else end - now.batch
            batches = max(left, 0)
            size = min(self.initial + number * self.step, self.full)
            found.append(Level(now.batch + batches, now.row + batches * now.size, size))
        return found

    def size(self, batch: int) -> int:
        """The rows of the batch with this number in the run, from 0."""
        return self._level(batch).size

    def rows(self, batches: int) -> int:
        """The rows of the first `batches` of the run."""
        level = self._level(batches)
        return level.row + (batches - level.batch) * level.size

    def batches(self, rows: int) -> int:
        """The fewest batches from the start of the run that have at least so many `rows`."""
        at = bisect_right(self.levels, rows, key=lambda level: level.row) - 1
        level = self.levels[at]
        return level.batch - (level.row - rows) // level.size

    def within(self, rows: int, first: int) -> int:
        """The most batches, from the one of the number `first` on, that have at most so many `rows`."""
        return self.batches(self.rows(first) + rows + 1) - 1 - first

    def _level(self, batch: int) -> Level:
        return self.levels[bisect_right(self.levels, batch, key=lambda level: level.batch) - 1]


class GrowingBatches:
    """Lists of draws of a sampler of this rank; without a growth those of `stock`, a batch sampler."""

    def __init__(self, stock: Any) -> None:
        self.stock, self.growth, self.first, self.next = stock, None, 0, 0

    def __len__(self) -> int:
        """The batches of the epoch: while they grow, it has more of them than the next one."""
        if self.growth is None:
            return len(self.stock)
        return self.growth.within(len(self.stock.sampler) * dist.get_world_size(), self.first)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.stock) if self.growth is None else self._growing(self.growth)

    def _growing(self, growth: Growth) -> Iterator[list[int]]:
        """Until the rows of the epoch don't fill a batch."""
        draws, devices = iter(self.stock.sampler), dist.get_world_size()
        for number in count(self.next):
            size = growth.size(number) // devices
            batch = list(islice(draws, size))
            if len(batch) < size:
                return
            yield batch


class GrowingLoader(DataLoader):
    """A `DataLoader` that drops a last batch that isn't full, and whose batches may grow over a run.

    `batch_size` is the full size on this device.
    """

    @cached_property
    def growing(self) -> GrowingBatches:
        return GrowingBatches(self.batch_sampler)

    @property
    def _index_sampler(self) -> Any:
        # As an argument `batch_sampler`, it would hide the sampler and the batch size, which Composer reads.
        return self.growing

    def grow(self, batch: int, done: int, **growth: Any) -> None:
        """Let batches grow from the one of the number `batch` in the run on, behind `done` of its epoch.

        Args:
            growth: the arguments of `Growth`, without `full`.
        """
        full = (self.batch_size or 0) * dist.get_world_size()
        self.growing.growth = Growth(full=full, **growth)
        self.growing.first, self.growing.next = batch - done, batch
