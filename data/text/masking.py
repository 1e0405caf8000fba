"""Masked-LM collation: padding in the workers, masking in the main process, randomness from a hash."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cadenza.data.draws import uniform, uniform_at
from cadenza.data.errors import DataError
from cadenza.data.progress import placed
from cadenza.data.text.datasets.shortening import Shortening
from cadenza.data.text.words import WordStarts, of_words

Batch = dict[str, Tensor]
IGNORED = -100  # the label of a token that isn't predicted


class MaskedLMCollator(Shortening):
    """Pads examples to a batch, and masks the batch (BERT, arXiv 1810.04805, section 3.1).

    Which tokens are masked, and how, is a pure function of (seed, draw, column): the same with any number of
    workers and after a resume. `mask` runs in the main process, as a `DataSpec`'s batch transform, so that
    `mlm_probability` and `length` may change from batch to batch without reaching into workers.

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
        rows = [np.asarray(example["input_ids"]) for example in examples]
        lengths = np.array([len(row) for row in rows])
        longest = int(lengths.max())
        length = min(-(-longest // 8) * 8, max(longest, self.max_seq_len))
        real = np.arange(length) < lengths[:, None]
        batch = {
            "input_ids": _padded(rows, real, self.pad),
            "attention_mask": torch.from_numpy(real.astype(np.int64)),
            "draw": torch.tensor([example["draw"] for example in examples]),
            **placed(examples),
        }
        if "document_ids" in examples[0]:
            documents = [np.asarray(example["document_ids"]) for example in examples]
            batch["document_ids"] = _padded(documents, real, -1)
        return batch

    def mask(self, batch: Batch) -> Batch:
        """The batch, cut to `length`, with corrupted `input_ids` and with `labels`.

        A batch in which no token was selected gets a label, or those of a word, since the mean loss over no
        label would be NaN.
        """
        batch = self.shortened(batch)
        ids = batch["input_ids"]
        rows, columns = self._selected(batch).nonzero(as_tuple=True)
        kept = {name: batch[name] for name in ("attention_mask", "document_ids", "draw") if name in batch}
        corrupted, labels = ids.clone(), torch.full_like(ids, IGNORED)
        corrupted[rows, columns] = self._corrupted(ids[rows, columns], batch["draw"], (rows, columns))
        labels[rows, columns] = ids[rows, columns]
        return {**kept, "input_ids": corrupted, "labels": labels}

    def _selected(self, batch: Batch) -> Tensor:
        """(batch, length), True at the tokens to predict."""
        ids, eligible = batch["input_ids"], self.eligible(batch)
        select = torch.from_numpy(uniform(self.seed * 4, batch["draw"].numpy(), ids.shape[1]))
        if self.starts is not None:
            select = of_words(select, self.starts(ids, eligible))
        selected = eligible & (select < self.mlm_probability)
        if eligible.any() and not selected.any():
            selected = eligible & (select <= select[eligible].min())
        return selected

    def _corrupted(self, ids: Tensor, draw: Tensor, places: tuple[Tensor, Tensor]) -> Tensor:
        """(tokens,), what the model sees of the tokens `ids`; `places` are their rows and columns."""
        rows, columns = (index.numpy() for index in places)
        kind, word = (
            torch.from_numpy(uniform_at(self.seed * 4 + stream, draw.numpy(), rows, columns))
            for stream in (1, 2)
        )
        words = torch.where(kind < self.replaced, self.words[(word * len(self.words)).long()], ids)
        return torch.where(kind < self.masked, self.mask_token, words)

    def eligible(self, batch: Batch) -> Tensor:
        """(batch, length), True at the tokens that may be masked: neither special nor padding."""
        return batch["attention_mask"].bool() & ~torch.isin(batch["input_ids"], self.special)


def _padded(rows: list[np.ndarray], real: np.ndarray, padding: int) -> Tensor:
    """(batch, length): `rows` where `real` is True, one after another, else `padding`."""
    batch = np.full(real.shape, padding)
    batch[real] = np.concatenate(rows)
    return torch.from_numpy(batch)
