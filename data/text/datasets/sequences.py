"""Sequences of token ids, each with its draw: the number that seeds its mask."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from composer.utils import dist
from torch.utils.data import IterableDataset, get_worker_info

from cadenza.data.draws import Drawn
from cadenza.data.progress import Place
from cadenza.data.text.datasets.behind import behind
from cadenza.data.text.encoding import MOST, Document, Encoder
from cadenza.data.text.prepared.cut import Cut
from cadenza.data.text.rows import Texts

Example = dict[str, Any]  # input_ids (length,) int64, draw int

PASS = 2**40  # more than the draws of one pass over a stream


def pieces(documents: Iterable[Document], tokenizer: Any, cut: Cut) -> Iterator[np.ndarray]:
    """The rows (tokens,) of documents, without special tokens around them."""
    special = set(tokenizer.all_special_ids)
    for ids in Encoder(tokenizer, cut.needed)(documents):
        yield from cut(ids, special)


class Frame:
    """Puts [CLS] in front of each row of token ids and [SEP] behind it: (length,) int64, of one array."""

    def __init__(self, tokenizer: Any) -> None:
        ends = tokenizer.cls_token_id, tokenizer.sep_token_id
        self.start, self.end = (np.array([id], dtype=np.int64) for id in ends)

    def __call__(self, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        whole = np.concatenate([part for row in rows for part in (self.start, row, self.end)])
        ends = list(accumulate(len(row) + 2 for row in rows))
        return [whole[start:end] for start, end in zip([0, *ends], ends, strict=False)]


class TokenizedDocuments(Drawn):
    """A row as a sequence [CLS] tokens [SEP]; indexed by draw, as `EpochSampler` yields them.

    Args:
        rows: the token ids (tokens,) of each, without special tokens.
    """

    def __init__(self, rows: Sequence[np.ndarray], tokenizer: Any) -> None:
        self.rows, self.frame = rows, Frame(tokenizer)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, draw: int) -> Example:
        return {"input_ids": torch.from_numpy(self.sequences([draw % len(self)])[0]), "draw": draw}

    def __getitems__(self, draws: list[int]) -> list[Example]:
        """Those of a batch, faster; their `input_ids` are arrays."""
        size = len(self)
        sequences = self.sequences([draw % size for draw in draws])
        return [{"input_ids": ids, "draw": draw} for ids, draw in zip(sequences, draws, strict=True)]

    def sequences(self, indices: Sequence[int]) -> list[np.ndarray]:
        """(length,) int64, of each of these rows."""
        return self.frame([self.rows[index] for index in indices])

    def lengths(self) -> np.ndarray:
        """(rows,) int64, the lengths of the sequences."""
        return lengths(self.rows) + 2


def lengths(rows: Sequence[np.ndarray]) -> np.ndarray:
    """(rows,) int64, the tokens of each row."""
    found = getattr(rows, "lengths", None)
    return np.array(list(map(len, rows)), dtype=np.int64) if found is None else found


class TokenizedStream(IterableDataset):
    """A stream, tokenized while it is read; draws don't overlap between ranks, workers and passes.

    Every pass is shuffled and masked anew; with `fixed`, for evaluation, all passes are the same.
    """

    def __init__(
        self, texts: Iterable[Document], tokenizer: Any, max_seq_len: int, split: bool, fixed: bool = False
    ) -> None:
        self.texts, self.tokenizer, self.max_seq_len, self.fixed = texts, tokenizer, max_seq_len, fixed
        self.cut, self.passes = Cut(max_seq_len - 2, split), 0

    @property
    def layout(self) -> dict[str, Any]:
        """What a `Place` depends on."""
        return {"data.max_seq_len": self.max_seq_len, "data.long_documents": self.cut.split}

    def __iter__(self) -> Iterator[Example]:
        return (example for example, _ in self.read(Place()))

    def read(self, start: Place) -> Iterator[tuple[Example, Place]]:
        """Begin the next pass: its examples behind `start`, each with the place behind it."""
        worker = get_worker_info()
        workers, index = (1, 0) if worker is None else (worker.num_workers, worker.id)
        pass_, self.passes = self.passes, self.passes + (not self.fixed)
        if isinstance(self.texts, Texts):
            self.texts.set_epoch(pass_)
        first, stride = dist.get_global_rank() * workers + index, dist.get_world_size() * workers
        return (
            ({**row, "draw": pass_ * PASS + first + count * stride}, place._replace(examples=count + 1))
            for count, (row, place) in enumerate(self.rows(start), start.examples)
        )

    def rows(self, start: Place) -> Iterator[tuple[dict[str, Any], Place]]:
        """The rows of a pass behind `start`: one sequence each, a unit of its document."""
        return (({"input_ids": torch.from_numpy(ids)}, place) for ids, place in self.sequences(start))

    def sequences(self, start: Place) -> Iterator[tuple[np.ndarray, Place]]:
        """(length,) int64, of the sequences behind `start`."""
        frame, special = Frame(self.tokenizer), set(self.tokenizer.all_special_ids)
        for number, ids in encoded(self.texts, Encoder(self.tokenizer, self.cut.needed), start):
            for unit, row in enumerate(self.cut(ids, special), 1):
                if number > start.document or unit > start.unit:
                    yield frame([row])[0], Place(number, unit)


def encoded(texts: Iterable[Document], encoder: Encoder, start: Place) -> Iterator[tuple[int, np.ndarray]]:
    """(number, token ids) of the documents from that of `start` on."""
    return enumerate(encoder(unread(texts, encoder, start)), start.document)


def unread(texts: Iterable[Document], encoder: Encoder, start: Place) -> Iterator[Document]:
    """The documents from that of `start` on, for `encoder`.

    Where earlier ones aren't encoded, the share of unknown tokens is unknown: it isn't checked.
    """
    encoder.most = 1.0 if start.document else MOST
    return behind(texts, start.document)
