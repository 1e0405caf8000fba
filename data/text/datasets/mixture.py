"""Several data sets as one: with weights to train on, one after another to evaluate."""

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from cadenza.data.draws import Drawn


class Mixture(Drawn):
    """Rows of `parts`, each of which gives its share of every epoch; indexed by draw.

    An epoch has as many rows as all parts together. A part goes on where the last epoch left it: each of its
    rows comes once before one comes twice. Which row a draw stands for is a pure function of the seed and the
    draw.

    Args:
        shares: of the rows of an epoch, for each part; their sum is 1.
        seed: of the order of each part in each of its passes.
    """

    def __init__(self, parts: Sequence[Any], shares: Sequence[float], seed: int) -> None:
        self.parts, self.seed = parts, seed
        self.counts = apportioned(sum(map(len, parts)), shares)
        self.starts = np.cumsum([0, *self.counts]).tolist()
        self.order = lru_cache(maxsize=2 * len(parts))(self._order)

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, draw: int) -> dict[str, Any]:
        epoch, place = divmod(draw, len(self))
        part = bisect_right(self.starts, place) - 1
        drawn = epoch * self.counts[part] + place - self.starts[part]
        pass_, index = divmod(drawn, len(self.parts[part]))
        return {**self.parts[part][int(self.order(part, pass_)[index])], "draw": draw}

    def __reduce__(self) -> tuple[Any, ...]:
        shares = [count / len(self) for count in self.counts]
        return Mixture, (self.parts, shares, self.seed)

    def _order(self, part: int, pass_: int) -> np.ndarray:
        return np.random.default_rng([self.seed, part, pass_]).permutation(len(self.parts[part]))


class Joined(Drawn):
    """The rows of `parts`, one part after another."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts, self.starts = parts, np.cumsum([0, *map(len, parts)]).tolist()

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, draw: int) -> dict[str, Any]:
        index = draw % len(self)
        part = bisect_right(self.starts, index) - 1
        return {**self.parts[part][index - self.starts[part]], "draw": draw}


def apportioned(total: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers near `total * share` whose sum is `total`: the largest remainders are rounded up."""
    exact = np.asarray(shares) * total
    counts = np.floor(exact).astype(np.int64)
    for index in np.argsort(counts - exact, kind="stable")[: total - int(counts.sum())]:
        counts[index] += 1
    return counts.tolist()
