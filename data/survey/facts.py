"""Documents, tokens and rows of a corpus, counted as training will see them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from cadenza.data.errors import DataError
from cadenza.data.text.config import TextConfig
from cadenza.data.text.encoding import BATCH, Encoder
from cadenza.data.text.packing import WINDOW, first_fit, waste
from cadenza.data.text.sequences import tokenized
from cadenza.data.text.windows import TaggedDocuments, anchor_id, windows


@dataclass
class Facts:
    """The counts of a corpus.

    Args:
        texts: the documents.
        lengths: (documents,) the tokens of each, without special tokens.
        rows: (rows,) the tokens of each row of training, special tokens included.
        packed: the number of rows with `sequence_packing`; None for windows, which are full without it.
        cut: tokens that no row holds.
        unknown: tokens that stand for text outside the vocabulary.
    """

    texts: list[str]
    lengths: np.ndarray
    rows: np.ndarray
    packed: int | None
    cut: int
    unknown: int
    capacity: int

    @property
    def repeated(self) -> int:
        """Documents whose whole text stands in an earlier one."""
        return len(self.texts) - len(set(self.texts))

    @property
    def filled(self) -> list[str]:
        """Documents with a token."""
        return [text for text, length in zip(self.texts, self.lengths, strict=True) if length]

    @property
    def empty(self) -> int:
        """Documents without a token."""
        return int((self.lengths == 0).sum())

    @property
    def padding(self) -> float:
        """The share of empty columns in rows of `capacity`."""
        return waste(self.rows, self.capacity)

    @property
    def packed_padding(self) -> float | None:
        """The same with `sequence_packing`."""
        if self.packed is None:
            return None
        return 1 - int(self.rows.sum()) / (self.capacity * self.packed) if self.packed else 0.0


def facts(texts: list[str], tokenizer: Any, cfg: TextConfig, causal: bool) -> Facts:
    """Count `texts`.

    Raises:
        DataError: there is no document, or most tokens are unknown to `tokenizer`.
    """
    if not texts:
        raise DataError(f"data.source: {cfg.source} gives no document")
    encoder = Counting(tokenizer)
    shown = tqdm(texts, desc="counting", unit="doc", disable=len(texts) < 20 * BATCH)
    rows = (_windows if causal else _sequences)(shown, encoder, cfg)
    lengths = np.array(encoder.lengths, dtype=np.int64)
    cuts = not causal and cfg.long_documents == "truncate"
    return Facts(
        texts=texts,
        lengths=lengths,
        rows=rows,
        packed=None if causal else _packed(rows, cfg.max_seq_len),
        cut=int((lengths - (cfg.max_seq_len - 2)).clip(min=0).sum()) if cuts else 0,
        unknown=encoder.unknown,
        capacity=cfg.max_seq_len,
    )


class Counting(Encoder):
    """An encoder that keeps the `lengths` of the documents."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer)
        self.lengths: list[int] = []

    def __call__(self, texts: Iterable[str]) -> Iterator[list[int]]:
        for ids in super().__call__(texts):
            self.lengths.append(len(ids))
            yield ids


def _sequences(texts: Iterable[str], encoder: Encoder, cfg: TextConfig) -> np.ndarray:
    rows = tokenized(texts, encoder, cfg.max_seq_len, cfg.long_documents == "split")
    return np.array([len(row) for row in rows], dtype=np.int64)


def _windows(texts: Iterable[str], encoder: Encoder, cfg: TextConfig) -> np.ndarray:
    documents = TaggedDocuments(encoder.tokenizer, cfg)
    documents.encoder = encoder
    rows = windows(documents(texts), cfg.max_seq_len, anchor_id(encoder.tokenizer))
    return np.array([len(row["input_ids"]) for row in rows], dtype=np.int64)


def _packed(rows: np.ndarray, capacity: int) -> int:
    """The number of rows that sequences of these lengths are packed into."""
    parts = (rows[start : start + WINDOW].tolist() for start in range(0, len(rows), WINDOW))
    return sum(len(first_fit(part, capacity)) for part in parts)
