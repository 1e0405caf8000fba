"""Sequences of token ids, each with its draw: the number that seeds its mask."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from composer.utils import dist
from torch.utils.data import Dataset, IterableDataset, get_worker_info
from tqdm.auto import tqdm

from cadenza.data.text.encoding import BATCH, Encoder
from cadenza.data.text.rows import Texts

Example = dict[str, Any]  # input_ids (length,) int64, draw int

PASS = 2**40  # more than the draws of one pass over a stream


def tokenized(texts: Iterable[str], encoder: Encoder, max_seq_len: int, split: bool) -> Iterator[np.ndarray]:
    """Sequences [CLS] tokens [SEP] of at most `max_seq_len`: each document's first, or all with `split`.

    A sequence of unknown and other special tokens alone is left out: nothing in it can be predicted.
    """
    body, tokenizer = max_seq_len - 2, encoder.tokenizer
    special = set(tokenizer.all_special_ids)
    for ids in encoder(texts):
        for start in range(0, len(ids), body) if split else (0,):
            piece = ids[start : start + body]
            if not special.issuperset(piece):
                yield np.array([tokenizer.cls_token_id, *piece, tokenizer.sep_token_id], dtype=np.int32)


class TokenizedDocuments(Dataset):
    """A finite source, tokenized once; indexed by draw, as `EpochSampler` yields them."""

    def __init__(self, texts: list[str], tokenizer: Any, max_seq_len: int, split: bool) -> None:
        shown = tqdm(texts, desc="tokenizing", unit="doc", disable=len(texts) < 20 * BATCH)
        encoder = Encoder(tokenizer)
        self.sequences = list(tokenized(shown, encoder, max_seq_len, split))
        self.unknown_share = encoder.unknown_share

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, draw: int) -> Example:
        ids = self.sequences[draw % len(self)]
        return {"input_ids": torch.from_numpy(ids.astype(np.int64)), "draw": draw}


class TokenizedStream(IterableDataset):
    """A stream, tokenized while it is read; draws don't overlap between ranks, workers and passes.

    Every pass is shuffled and masked anew; with `fixed`, for evaluation, all passes are the same. After a
    resume the pass number is right again, since Composer starts each of the earlier passes.
    """

    def __init__(
        self, texts: Iterable[str], tokenizer: Any, max_seq_len: int, split: bool, fixed: bool = False
    ) -> None:
        self.texts, self.max_seq_len, self.fixed, self.passes = texts, max_seq_len, fixed, 0
        self.options = Encoder(tokenizer), max_seq_len, split

    def __iter__(self) -> Iterator[Example]:
        worker = get_worker_info()
        workers, index = (1, 0) if worker is None else (worker.num_workers, worker.id)
        pass_, self.passes = self.passes, self.passes + (not self.fixed)
        if isinstance(self.texts, Texts):
            self.texts.set_epoch(pass_)
        first, stride = dist.get_global_rank() * workers + index, dist.get_world_size() * workers
        for count, row in enumerate(self.examples()):
            yield {**row, "draw": pass_ * PASS + first + count * stride}

    def examples(self) -> Iterator[dict[str, Any]]:
        """The rows of one pass over the stream."""
        return self.rows(tokenized(self.texts, *self.options))

    def rows(self, sequences: Iterator[np.ndarray]) -> Iterator[dict[str, Any]]:
        """One sequence a row."""
        return ({"input_ids": torch.from_numpy(ids.astype(np.int64))} for ids in sequences)
