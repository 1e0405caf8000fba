"""The base model's side of the seam: decides what a call needs, by the plan and the arguments of the call."""

import warnings
from typing import Any

from torch import Tensor

from cadenza.attention.anchor import Anchor
from cadenza.attention.batch_call import BatchCall
from cadenza.attention.kernels.ahead import make_ahead
from cadenza.attention.modules import STOCK, follow
from cadenza.attention.positions import cache_of
from cadenza.attention.rotary.rotation import Rotation
from cadenza.attention.rotary.tables import refuse_static
from cadenza.attention.stock_calls import ON_PADDING, leave_to_stock
from cadenza.surgery.retype import Mixin, Stage

NO_IDS = "anchor_attention: this training batch has no document_ids, so each row is one document"


class ReadsDocuments(Mixin, of="the attention seam", stage=Stage.ATTENTION):
    """A base model with a `BatchPlan`. It takes four more arguments:

    - `document_ids` (batch, length) keeps packed documents apart: 1, 2, ... for documents, -1 for padding, 0
      for an anchor (`cadenza.attention.anchor`);
    - `labelled` (rows,), places in the flattened batch, makes the last hidden state (1, rows, hidden);
    - `needs_padding`: labels are predicted from padding, which a model with a head finds out;
    - `unpacked`: each row is a document of a packed batch (`cadenza.attention.sequence_heads`).

    With none of them, and with no claim on kernel or layout, the stock `forward` runs unchanged. It also runs
    on a call that can't be computed by document (`BatchCall.describe`), with a warning.
    """

    def forward(
        self,
        *args: Any,
        document_ids: Tensor | None = None,
        labelled: Tensor | None = None,
        needs_padding: bool = False,
        unpacked: bool = False,
        **kwargs: Any,
    ) -> Any:
        model: Any = self
        if model.config._attn_implementation not in STOCK:  # changed since the seam was opened
            follow(model)
        plan = self.batch_plan
        if isinstance(plan.packing, Anchor) and self.training and document_ids is None:
            warnings.warn(NO_IDS, stacklevel=2)
        if plan.window is not None:
            refuse_static(cache_of(self, args, kwargs), "a claimed window")
        packed = unpacked or document_ids is not None
        if plan.by_document or packed:
            call = BatchCall(self, args, kwargs, labelled)
            reason = ON_PADDING if needs_padding else call.describe(document_ids)
            if reason is None:
                return self._by_document(call, unpad=unpacked or plan.layout is not None)
            leave_to_stock(plan, reason, packed, self.training)
        if labelled is None and not isinstance(plan.positions, Rotation):
            return super().forward(*args, **kwargs)
        return self._finished(BatchCall(self, args, kwargs, labelled))

    def _by_document(self, call: BatchCall, unpad: bool) -> Any:
        plan = self.batch_plan
        if unpad:
            call.unpad()
        if plan.positions is not None and plan.positions.per_document:
            call.restart_positions()
        make_ahead(self, call.others["documents"])
        return self._finished(call)

    def _finished(self, call: BatchCall) -> Any:
        if isinstance(self.batch_plan.positions, Rotation):
            call.rotate(self.batch_plan.positions)
        if self.batch_plan.rows == "last_layer" and call.labelled is not None:
            call.others["labelled"] = call.labelled
        return call.finish(super().forward(**call.named, **call.others))
