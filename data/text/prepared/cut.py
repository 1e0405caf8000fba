"""How documents become rows."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Cut:
    """Rows of a document's token ids.

    Args:
        body: the most tokens of a row, without special tokens; None: a row is a whole document.
        split: whether a document gives as many rows as it fills, and not one alone.
    """

    body: int | None
    split: bool = False

    @property
    def needed(self) -> int | None:
        """The tokens of a document that its rows hold, from the first on; None: all."""
        return None if self.split else self.body

    def __call__(self, ids: np.ndarray, special: set[int]) -> list[np.ndarray]:
        """The rows of a document, without those of special tokens alone: nothing in them can be predicted."""
        if self.body is None:
            return [ids] if len(ids) else []
        starts = range(0, len(ids), self.body) if self.split else (0,)
        rows = (ids[start : start + self.body] for start in starts)
        return [row for row in rows if not special.issuperset(row.tolist())]
