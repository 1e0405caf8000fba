"""Where the documents of a batch lie: what attention needs to keep them apart and to skip padding."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, groupby
from typing import Any

import torch
from torch import Tensor

from cadenza.surgery.compiling import uncompiled
from cadenza.surgery.errors import SurgeryError

PADDING = -1


@dataclass(eq=False)  # not frozen: torch.compile guards on a frozen one's fields, and so on each batch
class Documents:
    """Documents back to back in one row of tokens, or scattered over a padded batch.

    Made once a batch, on the host, with a single synchronization; every layer reads it, and none changes it.

    Args:
        lengths: the tokens of each document, all positive.
        device: where the tokens are.
        indices: (total,) places of the documents' tokens in the flattened batch; None: the batch is these
            tokens and nothing else.
        anchors: for each document the number of the one-token document that it sees besides itself; an
            anchor's own is its own. Empty: there are none.
    """

    lengths: tuple[int, ...]
    device: torch.device
    indices: Tensor | None = None
    anchors: tuple[int, ...] = ()
    _memory: dict[Any, Any] = field(default_factory=dict, repr=False)

    @property
    def total(self) -> int:
        return sum(self.lengths)

    @property
    def longest(self) -> int:
        return max(self.lengths)

    @cached_property
    def runs(self) -> list[tuple[int, int]]:
        """(count, length) of each run of equally long documents: a run is one dense batch."""
        return [(len(list(run)), length) for length, run in groupby(self.lengths)]

    @cached_property
    def cu_seqlens(self) -> Tensor:
        """(documents + 1,) int32: where each document starts, and the end."""
        return torch.tensor([0, *accumulate(self.lengths)], dtype=torch.int32, device=self.device)

    @cached_property
    def of_token(self) -> Tensor:
        """(total,) int32: the number of each token's document."""
        lengths = torch.tensor(self.lengths)
        numbers = torch.arange(len(lengths), dtype=torch.int32)
        return numbers.repeat_interleave(lengths).to(self.device)

    @cached_property
    def positions(self) -> Tensor:
        """(total,) int64: each token's place in its document."""
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
        """(documents + 1,) int32: `cu_seqlens` with a copy of its anchor in front of each document."""
        own = torch.tensor([n == anchor for n, anchor in enumerate(self.anchors)])
        copies = torch.cat([torch.zeros(1, dtype=torch.int32), (~own).cumsum(0, dtype=torch.int32)])
        return self.cu_seqlens + copies.to(self.device)

    @cached_property
    def anchored_keys(self) -> Tensor:
        """(total + copies,) int64: the places of the keys that `anchored_cu_seqlens` counts."""
        ends = self.anchored_cu_seqlens.long()
        lengths = ends.diff()
        document = torch.arange(len(lengths), device=self.device).repeat_interleave(lengths)
        from_end = ends[1:][document] - torch.arange(len(document), device=self.device)
        place = self.cu_seqlens[1:].long()[document] - from_end
        in_front = from_end > torch.tensor(self.lengths, device=self.device)[document]
        return torch.where(in_front, self.anchor_tokens[document], place)

    def alone(self) -> "Documents":
        """The same documents, with the padding gone."""
        return self if self.indices is None else Documents(self.lengths, self.device, anchors=self.anchors)

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` gives, made once a batch and not once a layer."""
        if key not in self._memory:
            self._memory[key] = make()
        return self._memory[key]

    def gather(self, tokens: Tensor) -> Tensor:
        """The documents' tokens of a batch: (batch, length, ...) -> (1, total, ...)."""
        flat = tokens.reshape(-1, *tokens.shape[2:])
        return (flat if self.indices is None else flat.index_select(0, self.indices))[None]

    def scatter(self, tokens: Tensor, batch: int, length: int) -> Tensor:
        """The way back, with zeros at padding: (1, total, ...) -> (batch, length, ...)."""
        rows = tokens.squeeze(0)  # not [0], whose backward fills a tensor of zeros
        if self.indices is not None:
            rows = rows.new_zeros(batch * length, *rows.shape[1:]).index_copy(0, self.indices, rows)
        return rows.view(batch, length, *rows.shape[1:])


def from_mask(mask: Tensor | None, batch: int, length: int, device: torch.device) -> Documents:
    """One document a row: its real tokens, those where the (batch, length) `mask` isn't 0.

    Raises:
        SurgeryError: the mask has another shape, or padding between real tokens, or only padding.
    """
    if mask is None:
        return Documents((length,) * batch, device)
    if mask.shape != (batch, length):
        said = tuple(mask.shape)
        raise SurgeryError(f"attention_mask has shape {said}; padding-free models need {(batch, length)}")
    ids = torch.where(mask.cpu() != 0, torch.arange(1, batch + 1)[:, None], PADDING)
    return from_ids(ids, device)


@uncompiled  # sizes that only the values tell
def from_ids(document_ids: Tensor, device: torch.device) -> Documents:
    """The runs of equal numbers in each row of `document_ids` (batch, length); -1 is padding.

    Raises:
        SurgeryError: a number comes again later in its row, 0 or less than -1 is used, or all is padding.
    """
    ids = document_ids.cpu()
    if bool(((ids < 1) & (ids != PADDING)).any()):
        raise SurgeryError("document_ids must be 1, 2, ... for documents and -1 for padding")
    # Numbers made unique across rows, so that a boundary is a change of number.
    unique = (ids.long() + torch.arange(len(ids))[:, None] * (int(ids.max()) + 1)).flatten()
    real = (ids != PADDING).flatten()
    numbers, lengths = unique[real].unique_consecutive(return_counts=True)
    if not len(numbers):
        raise SurgeryError("the batch is nothing but padding")
    _refuse_holes(numbers, unique, real)
    indices = None if bool(real.all()) else real.nonzero()[:, 0].to(device)
    return Documents(tuple(lengths.tolist()), device, indices)


def _refuse_holes(numbers: Tensor, unique: Tensor, real: Tensor) -> None:
    marked = torch.where(real, unique, -1).unique_consecutive()
    if len(numbers.unique()) < int((marked >= 0).sum()):
        raise SurgeryError(
            "a document is interrupted by padding or by another document; its tokens must stand together"
        )
