"""Documents, tokens and rows of a corpus, counted as training will see them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from cadenza.data.errors import DataError
from cadenza.data.text.config import TextConfig
from cadenza.data.text.datasets.packing import WINDOW, first_fit, waste
from cadenza.data.text.encoding import Document, Encoder
from cadenza.data.text.finite import digest
from cadenza.data.text.loader import masked_cut
from cadenza.data.text.marks.domains import Domains
from cadenza.data.text.marks.tagging import Tagging
from cadenza.data.text.marks.upsampling import upsampled

KEPT = 20_000  # documents that are kept, to look at; the most frequent unknown words show in fewer


@dataclass
class Facts:
    """The counts of a corpus.

    Args:
        documents: their number.
        repeated: those whose whole text stands in an earlier one.
        first: the first documents, to look at.
        lengths: (documents,) the tokens of each, without special tokens.
        rows: (rows,) the tokens of each row of training, special tokens included.
        packed: the number of rows with `sequence_packing`; None for windows, which are full without it.
        cut: tokens that no row holds.
        unknown: tokens that stand for text outside the vocabulary.
    """

    documents: int
    repeated: int
    first: list[Document]
    lengths: np.ndarray
    rows: np.ndarray
    packed: int | None
    cut: int
    unknown: int
    capacity: int

    @property
    def filled(self) -> list[Document]:
        """Those of the first documents that have a token."""
        return [document for document, length in zip(self.first, self.lengths, strict=False) if length]

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


def facts(documents: Iterable[Document], tokenizer: Any, cfg: TextConfig, causal: bool) -> Facts:
    """Count `documents`.

    Raises:
        DataError: there is none, or most tokens are unknown to `tokenizer`.
    """
    tally, encoder = Tally(), Encoder(tokenizer)
    shown = tqdm(documents, desc="counting", unit="doc", disable=None, delay=2.0)
    cut, special = masked_cut(cfg), set(tokenizer.all_special_ids)
    found, names, sequences = [], [], []
    for ids, domain in encoder.with_domains(tally(shown)):
        found.append(len(ids))
        names += [domain] if domain is not None and len(ids) else []
        sequences += [] if causal else [len(row) + 2 for row in cut(ids, special)]
    if not found:
        raise DataError(f"data.source: {', '.join(cfg.names)} gives no document")
    lengths = np.array(found, dtype=np.int64)
    domains = Domains.of(names) if names else None
    rows = _windows(lengths, tokenizer, cfg, domains) if causal else np.array(sequences, dtype=np.int64)
    cuts = not causal and cfg.long_documents == "truncate"
    return Facts(
        documents=len(lengths),
        repeated=len(lengths) - len(tally.seen),
        first=tally.first,
        lengths=lengths,
        rows=rows,
        packed=None if causal else _packed(rows, cfg.max_seq_len),
        cut=int((lengths - (cfg.max_seq_len - 2)).clip(min=0).sum()) if cuts else 0,
        unknown=encoder.unknown,
        capacity=cfg.max_seq_len,
    )


class Tally:
    """Passes documents on; keeps the `first` ones, and of each, 16 bytes in `seen`."""

    def __init__(self) -> None:
        self.first: list[Document] = []
        self.seen: set[bytes] = set()

    def __call__(self, documents: Iterable[Document]) -> Iterator[Document]:
        for document in documents:
            self.seen.add(digest(document))
            if len(self.first) < KEPT:
                self.first.append(document)
            yield document


def _windows(lengths: np.ndarray, tokenizer: Any, cfg: TextConfig, domains: Domains | None) -> np.ndarray:
    """The lengths of windows; `domains` are those of the documents that have a token."""
    tagging, held = Tagging(tokenizer, cfg), lengths[lengths > 0]
    sizes, numbers = tagging.lengths(held, domains), None if domains is None else domains.numbers
    order = upsampled(np.arange(len(held)), sizes, tagging.times(held), numbers, seed=0)
    tokens, room = int(sizes[order].sum()), cfg.max_seq_len - 1
    return np.array([room] * (tokens // room) + [tokens % room] * (tokens % room > 0), dtype=np.int64) + 1


def _packed(rows: np.ndarray, capacity: int) -> int:
    """The number of rows that sequences of these lengths are packed into."""
    parts = (rows[start : start + WINDOW].tolist() for start in range(0, len(rows), WINDOW))
    return sum(len(first_fit(part, capacity)) for part in parts)
