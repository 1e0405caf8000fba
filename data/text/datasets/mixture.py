"""Several data sets as one: with weights to train on, one after another to evaluate."""

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from cadenza.data.draws import Drawn


class Parts(Drawn):
    """Rows of several data sets, `parts`, indexed by draw."""

    parts: Sequence[Any]

    def place(self, draw: int) -> tuple[int, int]:
        """The part of a draw, and the row in it."""
        raise NotImplementedError

    def __getitem__(self, draw: int) -> dict[str, Any]:
        part, row = self.place(draw)
        return {**self.parts[part][row], "draw": draw}

    def __getitems__(self, draws: list[int]) -> list[dict[str, Any]]:
        """Those of a batch, which each part reads together."""
        places = [self.place(draw) for draw in draws]
        found: dict[tuple[int, int], dict[str, Any]] = {}
        for part in sorted({part for part, _ in places}):
            rows, dataset = [row for of, row in places if of == part], self.parts[part]
            together = getattr(dataset, "__getitems__", None)
            read = together(rows) if together else map(dataset.__getitem__, rows)
            found.update(((part, row), example) for row, example in zip(rows, read, strict=True))
        return [{**found[place], "draw": draw} for place, draw in zip(places, draws, strict=True)]


class Mixture(Parts):
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

    def place(self, draw: int) -> tuple[int, int]:
        epoch, place = divmod(draw, len(self))
        part = bisect_right(self.starts, place) - 1
        drawn = epoch * self.counts[part] + place - self.starts[part]
        pass_, index = divmod(drawn, len(self.parts[part]))
        return part, int(self.order(part, pass_)[index])

    def __reduce__(self) -> tuple[Any, ...]:
        shares = [count / len(self) for count in self.counts]
        return Mixture, (self.parts, shares, self.seed)

    def _order(self, part: int, pass_: int) -> np.ndarray:
        return np.random.default_rng([self.seed, part, pass_]).permutation(len(self.parts[part]))


class Joined(Parts):
    """The rows of `parts`, one part after another."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts, self.starts = parts, np.cumsum([0, *map(len, parts)]).tolist()

    def __len__(self) -> int:
        return self.starts[-1]

    def place(self, draw: int) -> tuple[int, int]:
        index = draw % len(self)
        part = bisect_right(self.starts, index) - 1
        return part, index - self.starts[part]


def apportioned(total: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers near `total * share` whose sum is `total`: the largest remainders are rounded up."""
    exact = np.asarray(shares) * total
    counts = np.floor(exact).astype(np.int64)
    for index in np.argsort(counts - exact, kind="stable")[: total - int(counts.sum())]:
        counts[index] += 1
    return counts.tolist()
