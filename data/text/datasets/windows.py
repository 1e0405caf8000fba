"""Documents in windows of a fixed number of tokens, for causal language modelling.

1. `Tagging` adds the domain tag in front of a document and an end token behind it.
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
from cadenza.data.errors import DataError
from cadenza.data.progress import placed
from cadenza.data.text.config import TextConfig
from cadenza.data.text.datasets.sequences import Example, lengths
from cadenza.data.text.masking import IGNORED, Batch

Piece = tuple[np.ndarray, int]  # tokens, and how many of them, from the first, are a tag: they get no loss


class Tagging:
    """A document's token ids between tag and end token; long documents are repeated for upsampling.

    Args:
        cfg: `domain_tag`, `upsample_from` and `upsample_times` are read.
    """

    def __init__(self, tokenizer: Any, cfg: TextConfig) -> None:
        self.cfg = cfg
        tag = tokenizer(cfg.domain_tag, add_special_tokens=False)["input_ids"] if cfg.domain_tag else []
        if len(tag) > cfg.max_seq_len - 2:
            room = f"a window of {cfg.max_seq_len} has {cfg.max_seq_len - 2} beside the anchor and the text"
            raise DataError(f"data.domain_tag: the tag has {len(tag)} tokens; {room}")
        self.tag, self.end = np.asarray(tag, dtype=np.int32), np.asarray([end_id(tokenizer)], dtype=np.int32)

    def __call__(self, ids: np.ndarray) -> Piece:
        return np.concatenate([self.tag, ids, self.end]), len(self.tag)

    def pieces(self, ids: np.ndarray) -> list[Piece]:
        """Those of a document: none if it is empty, several for upsampling."""
        return [self(ids)] * int(self.times(np.array(len(ids)))) if len(ids) else []

    def lengths(self, lengths: np.ndarray) -> np.ndarray:
        """The tokens of pieces, for those of documents."""
        return lengths + len(self.tag) + len(self.end)

    def times(self, lengths: np.ndarray) -> np.ndarray:
        """How often documents of these numbers of tokens come in a pass."""
        upsampled = lengths >= (self.cfg.upsample_from or np.inf)
        return np.where(upsampled, self.cfg.upsample_times, 1)


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
    """

    def __init__(self, rows: Sequence[np.ndarray], tokenizer: Any, cfg: TextConfig, seed: int) -> None:
        self.rows, self.tagging, self.anchor = rows, Tagging(tokenizer, cfg), anchor_id(tokenizer)
        self.size, sizes = cfg.max_seq_len, lengths(rows)
        order = np.random.default_rng(seed).permutation(len(rows))
        self.order = np.repeat(order, self.tagging.times(sizes[order]))
        self.ends = self.tagging.lengths(sizes[self.order]).cumsum()  # in the row of all pieces

    def __len__(self) -> int:
        return -(-int(self.ends[-1]) // (self.size - 1)) if len(self.ends) else 0

    def __getitem__(self, draw: int) -> Example:
        start = draw % len(self) * (self.size - 1)
        return {**_window(list(self._pieces(start, start + self.size - 1)), self.anchor), "draw": draw}

    def _pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """The pieces, or parts of them, between two places in the row of all pieces."""
        first = int(np.searchsorted(self.ends, start, side="right"))
        for index in range(first, len(self.ends)):
            tokens, tag = self.tagging(self.rows[int(self.order[index])])
            begin = int(self.ends[index]) - len(tokens)
            if begin >= stop:
                return
            left, right = max(start - begin, 0), min(stop - begin, len(tokens))
            yield tokens[left:right], min(max(tag - left, 0), right - left)


class CausalLMCollator:
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


def anchor_id(tokenizer: Any) -> int:
    """The id of the anchor: BOS; EOS where there is no BOS, as in Qwen; [CLS] of a trained WordPiece.

    Raises:
        DataError: the tokenizer has none of them.
    """
    return _first(tokenizer, "bos_token_id", "eos_token_id", "cls_token_id")


def end_id(tokenizer: Any) -> int:
    """The id that ends a document: EOS, or [SEP] of a trained WordPiece; errors as in `anchor_id`."""
    return _first(tokenizer, "eos_token_id", "sep_token_id")


def _first(tokenizer: Any, *names: str) -> int:
    for name in names:
        if (found := getattr(tokenizer, name, None)) is not None:
            return found
    raise DataError(
        f"tokenizer.name: the tokenizer has no {' and no '.join(names)}; windows need one of them"
    )
