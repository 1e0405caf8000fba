"""Sequence packing: several documents share a row, so that few columns are padding."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch

from cadenza.data.draws import Drawn
from cadenza.data.progress import Place
from cadenza.data.text.datasets.sequences import Example, TokenizedDocuments, TokenizedStream

WINDOW = 8192  # sequences that are packed together: enough short ones to fill the gaps beside long ones


def first_fit(lengths: Sequence[int] | np.ndarray, capacity: int) -> list[list[int]]:
    """Indices of sequences in rows of at most `capacity` tokens: first fit, longest first (Johnson, 1973).

    Sequences of one length are placed together: the first rows take as many of them as fit.

    Raises:
        ValueError: a sequence is longer than a row.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    if sizes.max(initial=0) > capacity:
        raise ValueError(f"a sequence of {sizes.max()} tokens doesn't fit a row of {capacity}")
    rows: list[list[int]] = []
    room = np.zeros(len(sizes), dtype=np.int64)
    order = np.argsort(-sizes, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(sizes[order])) + 1):
        if len(group):
            _place(group.tolist(), int(sizes[group[0]]), rows, room, capacity)
    return rows


def _place(group: list[int], size: int, rows: list[list[int]], room: np.ndarray, capacity: int) -> None:
    """Add sequences of one `size` to the first of `rows` that have `room`, then to new rows."""
    for row in np.flatnonzero(room[: len(rows)] >= size).tolist():
        fitting = int(room[row]) // max(size, 1) or 1
        part, group = group[:fitting], group[fitting:]
        rows[row] += part
        room[row] -= size * len(part)
        if not group:
            return
    each = capacity // max(size, 1)
    for start in range(0, len(group), each):
        part = group[start : start + each]
        room[len(rows)] = capacity - size * len(part)
        rows.append(part)


def waste(rows: Iterable[int], capacity: int) -> float:
    """The share of empty columns; `rows` are the numbers of tokens in rows of `capacity` columns."""
    filled = np.fromiter(rows, dtype=np.int64)
    return 1 - int(filled.sum()) / (capacity * len(filled)) if len(filled) else 0.0


class PackedDocuments(Drawn):
    """Rows of whole sequences of a finite source, indexed by draw.

    The seed decides once which sequences share a row: the same on every rank, in every epoch and after a
    resume. Of each sequence, 8 bytes are kept in memory.
    """

    def __init__(self, source: TokenizedDocuments, capacity: int, seed: int) -> None:
        self.source, lengths = source, source.lengths()
        shuffled = np.random.default_rng(seed).permutation(len(source))
        windows = [shuffled[start : start + WINDOW] for start in range(0, len(shuffled), WINDOW)]
        rows = [window[row] for window in windows for row in first_fit(lengths[window], capacity)]
        self.order = np.concatenate(rows) if rows else shuffled
        self.starts = np.cumsum([0, *map(len, rows)])
        self.waste = 1 - int(lengths.sum()) / (capacity * len(rows)) if rows else 0.0

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, draw: int) -> Example:
        return {**pack_row(self.source.sequences(self.row(draw % len(self)))), "draw": draw}

    def __getitems__(self, draws: list[int]) -> list[Example]:
        """Those of a batch, faster; their values are arrays."""
        rows = [self.row(draw % len(self)) for draw in draws]
        sequences = iter(self.source.sequences([index for row in rows for index in row]))
        packed = (_packed(list(islice(sequences, len(row)))) for row in rows)
        return [{**row, "draw": draw} for row, draw in zip(packed, draws, strict=True)]

    def row(self, index: int) -> list[int]:
        """The sequences of a row."""
        return self.order[self.starts[index] : self.starts[index + 1]].tolist()


class PackedStream(TokenizedStream):
    """Rows of whole sequences of a stream; a window of sequences is packed by itself.

    So a place is the beginning of a window, and the rows of it that are over.
    """

    def rows(self, start: Place) -> Iterator[tuple[dict[str, Any], Place]]:
        sequences, begin, over = self.sequences(start), start, start.rows
        while window := list(islice(sequences, WINDOW)):
            packed = first_fit([len(ids) for ids, _ in window], self.max_seq_len)
            for number, row in enumerate(packed[over:], over + 1):
                yield pack_row([window[i][0] for i in row]), begin._replace(rows=number)
            begin, over = window[-1][1], 0


def pack_row(sequences: list[np.ndarray]) -> dict[str, Any]:
    """One row: `input_ids` and `document_ids` (length,), documents numbered from 1."""
    return {name: torch.from_numpy(values) for name, values in _packed(sequences).items()}


def _packed(sequences: list[np.ndarray]) -> dict[str, np.ndarray]:
    numbers = np.arange(1, len(sequences) + 1).repeat([len(s) for s in sequences])
    return {"input_ids": np.concatenate(sequences), "document_ids": numbers}
