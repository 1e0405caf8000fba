"""The documents of a batch: where they are, so that attention keeps them apart and skips padding."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.runtime import uncompiled

PADDING = -1


@dataclass(eq=False)  # not frozen: torch.compile guards on each field of a frozen dataclass
class Documents:
    """Documents back to back in one row of tokens, or scattered over a padded batch.

    Made once a batch, on the host, with a single synchronization. Every layer reads it; no layer changes it.

    Args:
        lengths: the number of tokens of each document, positive.
        device: the device of the tokens.
        indices: (total,) places of the documents' tokens in the flattened batch; None: there is no padding.
        anchors: for each document the number of its anchor, a document of one token that it sees besides
            itself; an anchor is its own anchor. Empty: there are no anchors.
        passed: names of arguments that the caller of the model passed along; no kernel reads them.

    Attributes:
        total, longest: the tokens of all documents, and of the longest.
        anchored, alike: whether there are anchors; whether all documents are equally long.
    """

    lengths: tuple[int, ...]
    device: torch.device
    indices: Tensor | None = None
    anchors: tuple[int, ...] = ()
    passed: frozenset[str] = frozenset()
    _kept: dict[Any, Any] = field(default_factory=dict, repr=False)
    # What compiled layers read: of each number in a tuple they would make a constant.
    total: int = field(init=False, repr=False)
    longest: int = field(init=False, repr=False)
    anchored: bool = field(init=False, repr=False)
    alike: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.total, self.longest = sum(self.lengths), max(self.lengths)
        self.anchored, self.alike = bool(self.anchors), len(set(self.lengths)) == 1

    @cached_property
    def runs(self) -> list[tuple[int, int]]:
        """(count, length) of each run of equally long documents. A run is one dense batch."""
        return [(len(list(run)), length) for length, run in groupby(self.lengths)]

    @cached_property
    def cu_seqlens(self) -> Tensor:
        """(documents + 1,) int32: the start of each document, then the end."""
        return torch.tensor([0, *accumulate(self.lengths)], dtype=torch.int32, device=self.device)

    @cached_property
    def of_token(self) -> Tensor:
        """(total,) int32: the number of each token's document."""
        lengths = torch.tensor(self.lengths)
        numbers = torch.arange(len(lengths), dtype=torch.int32)
        return numbers.repeat_interleave(lengths).to(self.device)

    @cached_property
    def positions(self) -> Tensor:
        """(total,) int64: the position of each token in its document."""
        starts = self.cu_seqlens[:-1].long()[self.of_token.long()]
        return torch.arange(self.total, device=self.device) - starts

    @cached_property
    def anchor_tokens(self) -> Tensor:
        """(documents,) int64: the place of each document's anchor."""
        return self.cu_seqlens[:-1].long()[torch.tensor(self.anchors, device=self.device)]

    @cached_property
    def anchor_of_token(self) -> Tensor:
        """(total,) int64: the place of the anchor that each token sees."""
        return self.anchor_tokens[self.of_token.long()]

    @cached_property
    def anchored_cu_seqlens(self) -> Tensor:
        """(documents + 1,) int32: `cu_seqlens`, with a copy of its anchor in front of each document."""
        own = torch.tensor([n == anchor for n, anchor in enumerate(self.anchors)])
        copies = torch.cat([torch.zeros(1, dtype=torch.int32), (~own).cumsum(0, dtype=torch.int32)])
        return self.cu_seqlens + copies.to(self.device)

    @cached_property
    def anchored_keys(self) -> Tensor:
        """(total + copies,) int64: which token each key is that `anchored_cu_seqlens` counts.

        The copy of an anchor in front of document n counts as token `total + n`.
        """
        ends = self.anchored_cu_seqlens.long()
        lengths = ends.diff()
        document = torch.arange(len(lengths), device=self.device).repeat_interleave(lengths)
        from_end = ends[1:][document] - torch.arange(len(document), device=self.device)
        place = self.cu_seqlens[1:].long()[document] - from_end
        in_front = from_end > torch.tensor(self.lengths, device=self.device)[document]
        return torch.where(in_front, self.total + document, place)

    def without_padding(self) -> "Documents":
        """The same documents without the padding."""
        return self if self.indices is None else replace(self, indices=None, _kept={})

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """The result of `make()`, computed once a batch and kept under `key`."""
        return self._kept[key] if key in self._kept else self._made(key, make)

    @uncompiled  # reads lengths
    def _made(self, key: Any, make: Callable[[], Any]) -> Any:
        self._kept[key] = make()
        return self._kept[key]

    def gather(self, tokens: Tensor) -> Tensor:
        """(batch, length, ...) -> (1, total, ...), without the padding."""
        flat = tokens.reshape(-1, *tokens.shape[2:])
        return (flat if self.indices is None else flat.index_select(0, self.indices))[None]

    def scatter(self, tokens: Tensor, batch: int, length: int) -> Tensor:
        """(1, total, ...) -> (batch, length, ...), with zeros at padding."""
        rows = tokens.squeeze(0)  # not tokens[0], whose backward fills a tensor of zeros
        if self.indices is not None:
            rows = rows.new_zeros(batch * length, *rows.shape[1:]).index_copy(0, self.indices, rows)
        return rows.view(batch, length, *rows.shape[1:])

    def split(self, tokens: Tensor) -> list[Tensor]:
        """(total, ...) -> a view (count, length, ...) for each of `runs`."""
        if len(self.runs) == 1:
            return [tokens.view(*self.runs[0], *tokens.shape[1:])]
        # Not slices: the backward of each would write zeros of the full size.
        parts = tokens.split([count * length for count, length in self.runs])
        return [part.view(*run, *part.shape[1:]) for run, part in zip(self.runs, parts, strict=True)]


def from_mask(mask: Tensor | None, batch: int, length: int, device: torch.device) -> "Documents | str":
    """One document for each row: the tokens where the (batch, length) `mask` isn't 0.

    Or the reason why the rows aren't documents: the mask has another shape, padding between real tokens, or
    only padding.
    """
    if mask is None:
        return Documents((length,) * batch, device) if batch * length else "the batch is empty"
    if mask.shape != (batch, length):
        return f"attention_mask has shape {tuple(mask.shape)}, and not (batch, length)"
    return _from_rows(mask, device)


@uncompiled  # reads values
def _from_rows(mask: Tensor, device: torch.device) -> "Documents | str":
    # In NumPy, as in `from_ids`: torch took 3 to 4 ms of a step for it on an H100's host, in its threads.
    real = (mask != 0).cpu().numpy()
    lengths = real.sum(1)
    if not lengths.any():
        return "the batch is nothing but padding"
    if ((real[:, 1:] & ~real[:, :-1]).sum(1) + real[:, 0] > 1).any():
        return "attention_mask has padding between real tokens"
    return Documents(tuple(lengths[lengths > 0].tolist()), device, _places(real, device))


@uncompiled  # sizes depend on values
def from_ids(document_ids: Tensor, device: torch.device) -> Documents:
    """The documents of `document_ids` (batch, length): runs of equal numbers in a row; -1 is padding.

    Raises:
        SurgeryError: a run is interrupted, a number is 0 or below -1, or there is only padding.
    """
    ids = document_ids.long().cpu().numpy()
    real = ids != PADDING
    whole = not document_ids.is_floating_point() or bool((document_ids == document_ids.round()).all())
    if not whole or (real & (ids < 1)).any():
        raise SurgeryError("document_ids must be 1, 2, ... for documents and -1 for padding")
    if not real.any():
        raise SurgeryError("the batch is nothing but padding")
    # Unique across rows, so that each boundary is a change of number.
    unique = np.where(real, ids + np.arange(len(ids))[:, None] * (ids.max() + 1), PADDING)
    first = _changes(unique.ravel())
    runs = unique.ravel()[first]
    lengths = np.diff(first, append=unique.size)[runs != PADDING]
    if len(np.unique(runs)) - (PADDING in runs) < len(lengths):
        raise SurgeryError("a document is interrupted by padding or by another document; make it contiguous")
    return Documents(tuple(lengths.tolist()), device, _places(real, device))


def _changes(numbers: np.ndarray) -> np.ndarray:
    """Where another number begins than the one before it; the first place is one."""
    return np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 1))


def _places(real: np.ndarray, device: torch.device) -> Tensor | None:
    """The places of True in the flattened `real`, (total,) int64; None: it is True everywhere."""
    return None if real.all() else torch.from_numpy(np.flatnonzero(real)).to(device)
