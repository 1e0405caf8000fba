"""Sequences of token ids, each with the number of its draw: what seeds its mask."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from composer.utils import dist
from torch.utils.data import Dataset, DistributedSampler, IterableDataset, get_worker_info
from tqdm.auto import tqdm

from cadenza.data.sources import Texts

Example = dict[str, Any]  # input_ids (length,) int64, draw int

PASS = 2**40  # more than the draws of one pass over a stream
BATCH = 1000  # documents that go through the tokenizer together


def tokenized(texts: Iterable[str], tokenizer: Any, max_seq_len: int, split: bool) -> Iterator[np.ndarray]:
    """Each document's [CLS] tokens [SEP], at most `max_seq_len` long: the first, or all with `split`."""
    body = max_seq_len - 2
    remaining = iter(texts)
    while batch := list(islice(remaining, BATCH)):
        for ids in tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]:
            for start in range(0, len(ids), body) if split else range(min(len(ids), 1)):
                piece = ids[start : start + body]
                yield np.array([tokenizer.cls_token_id, *piece, tokenizer.sep_token_id], dtype=np.int32)


class TokenizedDocuments(Dataset):
    """A finite source, tokenized once.

    It's indexed by the number of a draw, `epoch * len(self) + index`, as `EpochSampler` gives them.
    """

    def __init__(self, texts: list[str], tokenizer: Any, max_seq_len: int, split: bool) -> None:
        shown = tqdm(texts, desc="tokenizing", unit="doc", disable=len(texts) < 20 * BATCH)
        self.sequences = list(tokenized(shown, tokenizer, max_seq_len, split))

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, draw: int) -> Example:
        ids = self.sequences[draw % len(self)]
        return {"input_ids": torch.from_numpy(ids.astype(np.int64)), "draw": draw}


class TokenizedStream(IterableDataset):
    """A stream, tokenized as it comes; draws are numbered without overlap over ranks, workers and passes.

    Every pass is shuffled and masked anew, unless it is `fixed`, for evaluation. A resume counts the passes
    again, since Composer starts each of the earlier ones.
    """

    def __init__(
        self, texts: Iterable[str], tokenizer: Any, max_seq_len: int, split: bool, fixed: bool = False
    ) -> None:
        self.texts, self.max_seq_len, self.fixed, self.passes = texts, max_seq_len, fixed, 0
        self.options = tokenizer, max_seq_len, split

    def __iter__(self) -> Iterator[Example]:
        worker = get_worker_info()
        workers, index = (1, 0) if worker is None else (worker.num_workers, worker.id)
        pass_, self.passes = self.passes, self.passes + (not self.fixed)
        if isinstance(self.texts, Texts):
            self.texts.set_epoch(pass_)
        first, step = dist.get_global_rank() * workers + index, dist.get_world_size() * workers
        for count, row in enumerate(self.examples()):
            yield {**row, "draw": pass_ * PASS + first + count * step}

    def examples(self) -> Iterator[dict[str, Any]]:
        """This pass over the stream, row by row."""
        return self.rows(tokenized(self.texts, *self.options))

    def rows(self, sequences: Iterator[np.ndarray]) -> Iterator[dict[str, Any]]:
        """One sequence a row."""
        return ({"input_ids": torch.from_numpy(ids.astype(np.int64))} for ids in sequences)


class EpochSampler(DistributedSampler):
    """A `DistributedSampler` whose indices carry the epoch; for evaluation every epoch is the first.

    Composer sets the epoch of evaluation samplers, too; evaluation must draw the same masks all the same.
    """

    def __init__(self, dataset: Any, train: bool, seed: int) -> None:
        place = {"num_replicas": dist.get_world_size(), "rank": dist.get_global_rank()}
        super().__init__(dataset, shuffle=train, drop_last=train, seed=seed, **place)
        self.offset = len(dataset) if train else 0

    def __iter__(self) -> Iterator[int]:
        return (self.epoch * self.offset + index for index in super().__iter__())
