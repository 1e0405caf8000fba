"""How a window of several documents is read: the mask of AnchorAttention and of its ablations.

Wang et al., "When Precision Meets Position", arXiv 2411.13476, section 4.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cadenza.attention.documents import PADDING, Documents, from_ids
from cadenza.surgery.errors import SurgeryError

MODES = ("anchor", "intra_document", "full")
ANCHOR = 0


@dataclass(frozen=True)
class Anchor:
    """How a causal model reads `document_ids` (batch, length).

    0 is the anchor, in column 0 only; 1, 2, ... are documents; -1 is padding.

    Args:
        mode: `anchor`: a token sees its own document up to itself, and the anchor. `intra_document`: only its
            own document up to itself. `full`: the window up to itself.
        reset_positions: positions restart in each document, after the anchor's, instead of counting on.
    """

    mode: str = "anchor"
    reset_positions: bool = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise SurgeryError(f"anchor_attention mode {self.mode!r} is not one of {', '.join(MODES)}")
        if self.mode == "full" and self.reset_positions:
            raise SurgeryError(
                "anchor_attention mode 'full' sees across documents; leave reset_positions out"
            )

    def documents(self, ids: Tensor, device: torch.device) -> Documents:
        """The documents of a batch.

        Raises:
            SurgeryError: an anchor is missing or not in column 0; and as in `from_ids`.
        """
        ids = ids.cpu()
        self._check(ids)
        shifted = torch.where(ids == PADDING, PADDING, ids + 1)
        if self.mode == "full":
            return from_ids(shifted.clamp(max=1), device)
        documents = from_ids(shifted, device)
        return replace(documents, anchors=_anchors(ids, documents)) if self.mode == "anchor" else documents

    def positions(self, documents: Documents) -> Tensor | None:
        """(total,) positions that restart in each document; None if they count on."""
        if not self.reset_positions:
            return None
        if not documents.anchors:
            return documents.positions
        after_anchor = documents.anchor_of_token != torch.arange(documents.total, device=documents.device)
        return documents.positions + after_anchor

    def _check(self, ids: Tensor) -> None:
        if bool(((ids < ANCHOR) & (ids != PADDING)).any()):
            raise SurgeryError("document_ids must be 0 (anchor), 1, 2, ... (documents) or -1 (padding)")
        rows, columns = (ids == ANCHOR).nonzero(as_tuple=True)
        if bool((columns != 0).any()):
            at = int(rows[columns != 0][0])
            raise SurgeryError(f"document_ids: row {at} has its anchor (id 0) outside of column 0")
        if self.mode == "anchor" and len(rows) < len(ids):
            at = int((ids[:, 0] != ANCHOR).nonzero()[0])
            raise SurgeryError(
                f"document_ids: row {at} starts with {int(ids[at, 0])}; its first token must be the anchor, "
                "id 0"
            )


def _anchors(ids: Tensor, documents: Documents) -> tuple[int, ...]:
    """The number of each document's anchor: the last document with id 0 up to this one."""
    real = ids.flatten()[ids.flatten() != PADDING]
    starts = torch.tensor(documents.lengths).cumsum(0) - torch.tensor(documents.lengths)
    is_anchor = real[starts] == ANCHOR
    numbers = torch.where(is_anchor, torch.arange(len(starts)), 0)
    return tuple(numbers.cummax(0).values.tolist())
