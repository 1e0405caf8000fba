"""Documents in windows of a fixed number of tokens, for causal language modelling.

1. `Tagging` (`cadenza.data.text.marks`) adds the domain tag in front of a document, an end token behind it.
2. `windows` and `WindowedDocuments` fill each window: an anchor token, then documents back to back up to the
   last token. The rest of a document begins the next window, as a document of its own behind that window's
   anchor. No token is lost.
3. `CausalLMCollator` makes batches of windows, with labels.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cadenza.attention.anchor import ANCHOR
from cadenza.attention.documents import PADDING
from cadenza.data.draws import Drawn
from cadenza.data.progress import placed
from cadenza.data.text.config import TextConfig
from cadenza.data.text.datasets.sequences import Example, lengths
from cadenza.data.text.datasets.shortening import Shortening
from cadenza.data.text.marks.anchor import anchor_id, end_id
from cadenza.data.text.marks.domains import Domains
from cadenza.data.text.marks.tagging import Piece, Tagging
from cadenza.data.text.marks.upsampling import upsampled
from cadenza.data.text.masking import IGNORED, Batch

__all__ = ["CausalLMCollator", "Tagging", "WindowedDocuments", "anchor_id", "end_id", "windows"]


def windows(pieces: Iterable[Piece], size: int, anchor: int) -> Iterator[dict[str, Tensor]]:
    """Rows of `size` tokens, the last one shorter: (length,) `input_ids`, `document_ids` and `tagged`.

    `document_ids` are 0 at the anchor, then 1, 2, ...; `tagged` is True at the tokens of a tag.
    """
    row: list[Piece] = []
    room = size - 1
    for tokens, tag in pieces:
        while len(tokens) > room:
            row.append((tokens[:room], min(tag, room)))
            yield _window(row, anchor)
            tokens, tag, row, room = tokens[room:], max(tag - room, 0), [], size - 1
        if len(tokens):
            row.append((tokens, tag))
            room -= len(tokens)
    if row:
        yield _window(row, anchor)


def _window(row: list[Piece], anchor: int) -> dict[str, Tensor]:
    pieces = [(np.array([anchor], dtype=np.int32), 0), *row]
    lengths = torch.tensor([len(tokens) for tokens, _ in pieces])
    tagged = [np.arange(len(tokens)) < tag for tokens, tag in pieces]
    return {
        "input_ids": torch.from_numpy(np.concatenate([tokens for tokens, _ in pieces]).astype(np.int64)),
        "document_ids": torch.arange(len(pieces)).repeat_interleave(lengths),
        "tagged": torch.from_numpy(np.concatenate(tagged)),
    }


class WindowedDocuments(Drawn):
    """The windows of a finite source, indexed by draw.

    The seed decides once which documents are neighbours: the same on every rank, in every epoch and after a
    resume. Of each document, 16 bytes are kept in memory.

    Args:
        rows: the token ids (tokens,) of each document, without special tokens; none is empty.
        domains: those of the rows; None: they have none.
    """

    def __init__(
        self,
        rows: Sequence[np.ndarray],
        tokenizer: Any,
        cfg: TextConfig,
        seed: int,
        domains: Domains | None = None,
    ) -> None:
        self.rows, self.domains, self.tagging = rows, domains, Tagging(tokenizer, cfg)
        self.size, sizes = cfg.max_seq_len, lengths(rows)
        times, sizes = self.tagging.times(sizes), self.tagging.lengths(sizes, domains)
        order = np.random.default_rng(seed).permutation(len(rows))
        numbers = None if domains is None else domains.numbers
        self.order = upsampled(order, sizes, times, numbers, seed)
        self.ends = sizes[self.order].cumsum()  # in the row of all pieces

    def __len__(self) -> int:
        return -(-int(self.ends[-1]) // (self.size - 1)) if len(self.ends) else 0

    def __getitem__(self, draw: int) -> Example:
        start = draw % len(self) * (self.size - 1)
        pieces = list(self._pieces(start, start + self.size - 1))
        return {**_window(pieces, self.tagging.anchor), "draw": draw}

    def _pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """The pieces, or parts of them, between two places in the row of all pieces."""
        first = int(np.searchsorted(self.ends, start, side="right"))
        for index in range(first, len(self.ends)):
            row = int(self.order[index])
            domain = None if self.domains is None else self.domains.name(row)
            tokens, tag = self.tagging(self.rows[row], domain)
            begin = int(self.ends[index]) - len(tokens)
            if begin >= stop:
                return
            left, right = max(start - begin, 0), min(stop - begin, len(tokens))
            yield tokens[left:right], min(max(tag - left, 0), right - left)


class CausalLMCollator(Shortening):
    """Pads windows to a batch: (batch, length) `input_ids`, `attention_mask`, `document_ids` and `labels`;
    (batch,) `draw`. The labels are not shifted, since transformers does so.

    Args:
        boundary_loss: whether a document's last token is to predict the next one's first, as in the published
            code of AnchorAttention.
    """

    def __init__(self, tokenizer: Any, boundary_loss: bool) -> None:
        pad = tokenizer.pad_token_id
        self.pad, self.boundary_loss = end_id(tokenizer) if pad is None else pad, boundary_loss

    def __call__(self, examples: list[dict[str, Any]]) -> Batch:
        ids, documents = _padded(examples, "input_ids", self.pad), _padded(examples, "document_ids", PADDING)
        unlabelled = (documents <= ANCHOR) | _padded(examples, "tagged", True)
        if not self.boundary_loss:
            unlabelled[:, 1:] |= (documents.diff() != 0) & (documents[:, :-1] != ANCHOR)
        return {
            "input_ids": ids,
            "attention_mask": (documents != PADDING).long(),
            "document_ids": documents,
            "labels": ids.masked_fill(unlabelled, IGNORED),
            "draw": torch.tensor([example["draw"] for example in examples]),
            **placed(examples),
        }

    def eligible(self, batch: Batch) -> Tensor:
        """(batch, length), True at the tokens to predict."""
        return batch["labels"] != IGNORED


def _padded(examples: list[dict[str, Any]], name: str, value: Any) -> Tensor:
    rows = [example[name] for example in examples]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)
