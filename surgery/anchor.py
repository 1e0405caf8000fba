"""What a token sees in a window of several documents: the mask of AnchorAttention and its ablations.

Wang et al., "When Precision Meets Position", arXiv 2411.13476, section 4.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cadenza.surgery.documents import PADDING, Documents, from_ids
from cadenza.surgery.errors import SurgeryError

MODES = ("anchor", "intra_document", "full")
ANCHOR = 0


@dataclass(frozen=True)
class Anchor:
    """How a causal model reads `document_ids` (batch, length): 0 the anchor, in column 0 alone; 1, 2, ... the
    documents; -1 padding.

    Args:
        mode: `anchor`: a token sees its own document up to itself, and the anchor. `intra_document`: its own
            document alone. `full`: everything before it in the window.
        reset_positions: positions start anew in each document, behind the anchor's, instead of running on.
    """

    mode: str = "anchor"
    reset_positions: bool = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise SurgeryError(f"anchor_attention mode {self.mode!r} is not one of {', '.join(MODES)}")
        if self.mode == "full" and self.reset_positions:
            raise SurgeryError("anchor_attention: full attention sees across documents, so positions run on")

    def documents(self, ids: Tensor, device: torch.device) -> Documents:
        """The documents of a batch.

        Raises:
            SurgeryError: an anchor is missing or stands elsewhere; what `from_ids` raises.
        """
        ids = ids.cpu()
        self._check(ids)
        shifted = torch.where(ids == PADDING, PADDING, ids + 1)
        if self.mode == "full":
            return from_ids(shifted.clamp(max=1), device)
        documents = from_ids(shifted, device)
        return replace(documents, anchors=_anchors(ids, documents)) if self.mode == "anchor" else documents

    def positions(self, documents: Documents) -> Tensor | None:
        """(total,), those that start anew; None: they run on."""
        if not self.reset_positions:
            return None
        if not documents.anchors:
            return documents.positions
        behind = documents.anchor_of_token != torch.arange(documents.total, device=documents.device)
        return documents.positions + behind

    def _check(self, ids: Tensor) -> None:
        if bool(((ids < ANCHOR) & (ids != PADDING)).any()):
            raise SurgeryError(
                "document_ids must be 0 for the anchor, 1, 2, ... for documents, -1 for padding"
            )
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
    """Each document's anchor: the last document of id 0 up to it."""
    real = ids.flatten()[ids.flatten() != PADDING]
    starts = torch.tensor(documents.lengths).cumsum(0) - torch.tensor(documents.lengths)
    is_anchor = real[starts] == ANCHOR
    numbers = torch.where(is_anchor, torch.arange(len(starts)), 0)
    return tuple(numbers.cummax(0).values.tolist())
