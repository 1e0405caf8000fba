"""Masked-LM collation: padding in the workers, masking in the main process, randomness from a hash."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cadenza.data.errors import DataError

Batch = dict[str, Tensor]
IGNORED = -100  # the label of a token that isn't predicted


class MaskedLMCollator:
    """Pads examples to a batch, and masks the batch 80/10/10 (BERT, arXiv 1810.04805, section 3.1).

    Which tokens are masked, and how, is a pure function of (seed, draw, column): the same with any number of
    workers and after a resume. `mask` runs in the main process, as a `DataSpec`'s batch transform, so that
    `mlm_probability` may change from batch to batch without reaching into workers.

    Args:
        tokenizer: gives the padding, the mask token, and the special tokens, which are neither masked nor
            drawn as replacements.
        mlm_probability: the share of tokens to predict, in (0, 1).
        max_seq_len: no batch is padded beyond it.
        seed: the key of the hash.
    """

    def __init__(self, tokenizer: Any, mlm_probability: float, max_seq_len: int, seed: int) -> None:
        self.pad, self.mask_token = tokenizer.pad_token_id, tokenizer.mask_token_id
        self.special = torch.tensor(sorted(tokenizer.all_special_ids))
        self.words = torch.tensor(sorted(set(range(len(tokenizer))) - set(tokenizer.all_special_ids)))
        self.max_seq_len, self.seed = max_seq_len, seed
        self.mlm_probability = mlm_probability

    @property
    def mlm_probability(self) -> float:
        return self._mlm_probability

    @mlm_probability.setter
    def mlm_probability(self, ratio: float) -> None:
        if not 0 < ratio < 1:
            raise DataError(f"mlm_probability is {ratio}; it must lie in (0, 1)")
        self._mlm_probability = ratio

    def __call__(self, examples: list[dict[str, Any]]) -> Batch:
        """(batch, length) `input_ids` and `attention_mask`, and (batch,) `draw`; of packed rows
        `document_ids`, too.

        The length is that of the longest example, rounded up to a multiple of 8.
        """
        longest = max(len(example["input_ids"]) for example in examples)
        length = min(-(-longest // 8) * 8, max(longest, self.max_seq_len))
        ids = torch.full((len(examples), length), self.pad)
        attention = torch.zeros_like(ids)
        for row, example in enumerate(examples):
            size = len(example["input_ids"])
            ids[row, :size] = example["input_ids"]
            attention[row, :size] = 1
        draw = torch.tensor([example["draw"] for example in examples])
        batch = {"input_ids": ids, "attention_mask": attention, "draw": draw}
        if "document_ids" in examples[0]:
            batch["document_ids"] = torch.full_like(ids, -1)
            for row, example in enumerate(examples):
                batch["document_ids"][row, : len(example["document_ids"])] = example["document_ids"]
        return batch

    def mask(self, batch: Batch) -> Batch:
        """The batch with corrupted `input_ids` and with `labels`.

        A batch in which chance selected no token gets one label all the same: the mean loss over no label
        would be NaN.
        """
        ids, draw = batch["input_ids"], batch["draw"]
        select, corrupt, replace = (self._uniform(draw, ids.shape[1], stream) for stream in range(3))
        eligible = self.eligible(batch)
        chosen = eligible & (select < self.mlm_probability)
        if eligible.any() and not chosen.any():
            chosen.view(-1)[select.masked_fill(~eligible, 1.0).argmin()] = True
        words = self.words[(replace * len(self.words)).long()]
        corrupted = torch.where(corrupt < 0.8, self.mask_token, torch.where(corrupt < 0.9, words, ids))
        kept = {name: batch[name] for name in ("attention_mask", "document_ids", "draw") if name in batch}
        return {
            **kept,
            "input_ids": torch.where(chosen, corrupted, ids),
            "labels": ids.masked_fill(~chosen, IGNORED),
        }

    def eligible(self, batch: Batch) -> Tensor:
        """(batch, length), True at the tokens that may be masked: neither special nor padding."""
        return batch["attention_mask"].bool() & ~torch.isin(batch["input_ids"], self.special)

    def _uniform(self, draw: Tensor, columns: int, stream: int) -> Tensor:
        """(batch, columns) float64 in [0, 1), from the hash of (seed, stream, draw, column)."""
        key = _scramble(np.array([self.seed * 4 + stream], dtype=np.uint64))
        rows = _scramble(key ^ _scramble(draw.numpy().astype(np.uint64)))
        cells = _scramble(rows[:, None] ^ np.arange(columns, dtype=np.uint64)[None, :])
        return torch.from_numpy((cells >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _scramble(x: np.ndarray) -> np.ndarray:
    """SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): one step and its finalizer, modulo 2^64."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
