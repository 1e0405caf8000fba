"""Sequence packing: several documents share a row, so that few columns are padding."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from cadenza.data.text.sequences import Example, TokenizedDocuments, TokenizedStream

WINDOW = 8192  # sequences that are packed together: enough short ones to fill the gaps beside long ones
FULL = 0.993  # the share of columns from which a row of a stream counts as full


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of sequences in rows of at most `capacity` tokens: first fit, longest first (Johnson, 1973).

    Raises:
        ValueError: a sequence is longer than a row.
    """
    if max(lengths, default=0) > capacity:
        raise ValueError(f"a sequence of {max(lengths)} tokens doesn't fit a row of {capacity}")
    rows: list[list[int]] = []
    room = np.zeros(len(lengths), dtype=np.int64)
    for index in np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable"):
        fitting = room[: len(rows)] >= lengths[index]
        row = int(fitting.argmax()) if fitting.any() else len(rows)
        if row == len(rows):
            rows.append([])
            room[row] = capacity
        rows[row].append(int(index))
        room[row] -= lengths[index]
    return rows


def waste(rows: Iterable[int], capacity: int) -> float:
    """The share of empty columns; `rows` are the numbers of tokens in rows of `capacity` columns."""
    filled = list(rows)
    return 1 - sum(filled) / (capacity * len(filled)) if filled else 0.0


class PackedDocuments(Dataset):
    """Rows of whole sequences of a finite source, indexed by draw.

    The seed decides once which sequences share a row: the same on every rank, in every epoch and after a
    resume.
    """

    def __init__(self, source: TokenizedDocuments, capacity: int, seed: int) -> None:
        self.sequences, self.rows, self.unknown_share = source.sequences, [], source.unknown_share
        order = np.random.default_rng(seed).permutation(len(source))
        for start in range(0, len(order), WINDOW):
            window = order[start : start + WINDOW]
            packed = first_fit([len(self.sequences[i]) for i in window], capacity)
            self.rows += [window[row] for row in packed]
        self.waste = waste((sum(len(self.sequences[i]) for i in row) for row in self.rows), capacity)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, draw: int) -> Example:
        row = self.rows[draw % len(self)]
        return {**pack_row([self.sequences[i] for i in row]), "draw": draw}


class PackedStream(TokenizedStream):
    """Rows of whole sequences of a stream; those of rows with gaps are packed again in the next window."""

    def rows(self, sequences: Iterator[np.ndarray]) -> Iterator[dict[str, Any]]:
        capacity, pending = self.max_seq_len, []
        while window := list(islice(sequences, WINDOW)):
            pending += window
            packed = [[pending[i] for i in row] for row in first_fit([len(s) for s in pending], capacity)]
            filled = [sum(len(s) for s in row) for row in packed]
            # At least half of the rows are yielded, so that `pending` doesn't grow from window to window.
            enough = min(FULL * capacity, sorted(filled)[len(filled) // 2])
            yield from (pack_row(row) for row, size in zip(packed, filled, strict=True) if size >= enough)
            pending = [s for row, size in zip(packed, filled, strict=True) if size < enough for s in row]
        for row in first_fit([len(s) for s in pending], capacity):
            yield pack_row([pending[i] for i in row])


def pack_row(sequences: list[np.ndarray]) -> dict[str, Any]:
    """One row: `input_ids` and `document_ids` (length,), documents numbered from 1."""
    ids = torch.from_numpy(np.concatenate(sequences).astype(np.int64))
    lengths = torch.tensor([len(s) for s in sequences])
    return {"input_ids": ids, "document_ids": torch.arange(1, len(lengths) + 1).repeat_interleave(lengths)}
