"""Masked-LM collation: padding in the workers, masking in the main process, randomness from a hash."""

from typing import Any

import torch
from torch import Tensor

from cadenza.data.draws import uniform
from cadenza.data.errors import DataError
from cadenza.data.text.words import WordStarts, of_words

Batch = dict[str, Tensor]
IGNORED = -100  # the label of a token that isn't predicted


class MaskedLMCollator:
    """Pads examples to a batch, and masks the batch (BERT, arXiv 1810.04805, section 3.1).

    Which tokens are masked, and how, is a pure function of (seed, draw, column): the same with any number of
    workers and after a resume. `mask` runs in the main process, as a `DataSpec`'s batch transform, so that
    `mlm_probability` may change from batch to batch without reaching into workers.

    Args:
        tokenizer: gives the ids of padding, mask token and special tokens. Special tokens are neither masked
            nor used as random replacements.
        mlm_probability: the share of tokens to predict, in (0, 1).
        max_seq_len: no batch is padded beyond it.
        seed: the key of the hash.
        words: whether all tokens of a word are predicted or none, each corrupted on its own (the second
            release of BERT).
        mask_replace_prob, random_replace_prob: of the tokens to predict, the shares that become the mask
            token, and a random word; the rest stays as it is. Of BERT.
    """

    def __init__(
        self,
        tokenizer: Any,
        mlm_probability: float,
        max_seq_len: int,
        seed: int,
        words: bool = False,
        mask_replace_prob: float = 0.8,
        random_replace_prob: float = 0.1,
    ) -> None:
        self.pad, self.mask_token = tokenizer.pad_token_id, tokenizer.mask_token_id
        # Ids may have gaps: only those of the vocabulary stand for words.
        self.special = torch.tensor(sorted(tokenizer.all_special_ids))
        self.words = torch.tensor(
            sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))
        )
        self.max_seq_len, self.seed = max_seq_len, seed
        self.mlm_probability = mlm_probability
        self.starts = WordStarts(tokenizer) if words else None
        self.masked, self.replaced = mask_replace_prob, mask_replace_prob + random_replace_prob

    @property
    def mlm_probability(self) -> float:
        return self._mlm_probability

    @mlm_probability.setter
    def mlm_probability(self, ratio: float) -> None:
        if not 0 < ratio < 1:
            raise DataError(f"mlm_probability is {ratio}; it must lie in (0, 1)")
        self._mlm_probability = ratio

    def __call__(self, examples: list[dict[str, Any]]) -> Batch:
        """(batch, length) `input_ids` and `attention_mask`, (batch,) `draw`; packed: `document_ids` too.

        The length is that of the longest example, rounded up to a multiple of 8.
        """
        lengths = torch.tensor([len(example["input_ids"]) for example in examples])
        longest = int(lengths.max())
        length = min(-(-longest // 8) * 8, max(longest, self.max_seq_len))
        batch = {
            "input_ids": _padded(examples, "input_ids", length, self.pad),
            "attention_mask": (torch.arange(length) < lengths[:, None]).long(),
            "draw": torch.tensor([example["draw"] for example in examples]),
        }
        if "document_ids" in examples[0]:
            batch["document_ids"] = _padded(examples, "document_ids", length, -1)
        return batch

    def mask(self, batch: Batch) -> Batch:
        """The batch with corrupted `input_ids` and with `labels`.

        A batch in which no token was selected gets a label, or those of a word, since the mean loss over no
        label would be NaN.
        """
        ids, draw = batch["input_ids"], batch["draw"]
        # Each (batch, length).
        select, corrupt, replace = (self._uniform(draw, ids.shape[1], stream) for stream in range(3))
        eligible = self.eligible(batch)
        if self.starts is not None:
            select = of_words(select, self.starts(ids, eligible))
        selected = eligible & (select < self.mlm_probability)
        if eligible.any() and not selected.any():
            selected = eligible & (select <= select[eligible].min())
        words = self.words[(replace * len(self.words)).long()]
        words = torch.where(corrupt < self.replaced, words, ids)
        corrupted = torch.where(corrupt < self.masked, self.mask_token, words)
        kept = {name: batch[name] for name in ("attention_mask", "document_ids", "draw") if name in batch}
        return {
            **kept,
            "input_ids": torch.where(selected, corrupted, ids),
            "labels": ids.masked_fill(~selected, IGNORED),
        }

    def eligible(self, batch: Batch) -> Tensor:
        """(batch, length), True at the tokens that may be masked: neither special nor padding."""
        return batch["attention_mask"].bool() & ~torch.isin(batch["input_ids"], self.special)

    def _uniform(self, draw: Tensor, columns: int, stream: int) -> Tensor:
        """(batch, columns) float64 in [0, 1), from the hash of (seed, stream, draw, column)."""
        return torch.from_numpy(uniform(self.seed * 4 + stream, draw.numpy(), columns))


def _padded(examples: list[dict[str, Any]], name: str, length: int, padding: int) -> Tensor:
    rows = torch.full((len(examples), length), padding)
    for row, example in zip(rows, examples, strict=True):
        row[: len(example[name])] = example[name]
    return rows
