"""The base model's side of the seam: decides what a call needs, by the plan and the arguments of the call."""

import warnings
from typing import Any

from torch import Tensor

from cadenza.attention.anchor import Anchor
from cadenza.attention.batch_call import BatchCall
from cadenza.attention.positions import cache_of, rotation
from cadenza.attention.rope import refuse_static
from cadenza.surgery.retype import Mixin, Stage

NO_IDS = "anchor_attention: this training batch has no document_ids, so each row is one document"


class ReadsDocuments(Mixin, of="the attention seam", stage=Stage.ATTENTION):
    """A base model with a `BatchPlan`. It takes two more arguments:

    - `document_ids` (batch, length) keeps packed documents apart: 1, 2, ... for documents, -1 for padding, 0
      for an anchor (`cadenza.attention.anchor`);
    - `labelled` (rows,), places in the flattened batch, makes the last hidden state (1, rows, hidden).

    With neither, and with no claim on kernel or layout, the stock `forward` runs unchanged.
    """

    def forward(
        self, *args: Any, document_ids: Tensor | None = None, labelled: Tensor | None = None, **kwargs: Any
    ) -> Any:
        plan = self.batch_plan
        if isinstance(plan.packing, Anchor) and self.training and document_ids is None:
            warnings.warn(NO_IDS, stacklevel=2)
        if plan.window is not None:
            refuse_static(cache_of(self, args, kwargs), "a claimed window")
        by_document = plan.by_document or document_ids is not None
        if not by_document and labelled is None:
            if plan.positions is not None:
                kwargs["rope"] = rotation(self, args, kwargs)
            return super().forward(*args, **kwargs)
        call = BatchCall(self, args, kwargs, labelled)
        if by_document:
            call.describe(document_ids)
        if plan.layout is not None:
            call.unpad()
        if plan.positions is not None:
            call.rotate(plan.positions.per_document)
        if plan.rows == "last_layer":
            call.others["labelled"] = call.labelled
        return call.finish(super().forward(**call.named, **call.others))
