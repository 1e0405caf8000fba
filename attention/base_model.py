"""The base model's side of the seam: decides what a call needs, by the plan and the arguments of the call."""

import warnings
from typing import Any

import torch
from torch import Tensor

from cadenza.attention.anchor import Anchor
from cadenza.attention.batch_call import BatchCall
from cadenza.attention.modules import STOCK, follow
from cadenza.attention.positions import cache_of
from cadenza.attention.rotary.tables import refuse_static
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.retype import Mixin, Stage
from cadenza.surgery.runtime import uncompiled

NO_IDS = "anchor_attention: this training batch has no document_ids, so each row is one document"


class ReadsDocuments(Mixin, of="the attention seam", stage=Stage.ATTENTION):
    """A base model with a `BatchPlan`. It takes three more arguments:

    - `document_ids` (batch, length) keeps packed documents apart: 1, 2, ... for documents, -1 for padding, 0
      for an anchor (`cadenza.attention.anchor`);
    - `labelled` (rows,), places in the flattened batch, makes the last hidden state (1, rows, hidden);
    - `targets` (batch, length) are the labels of the call, which a model with a head shows.

    With none of them, and with no claim on kernel or layout, the stock `forward` runs unchanged. It also runs
    on a call that can't be computed by document (`BatchCall.describe`), with a warning.
    """

    def forward(
        self,
        *args: Any,
        document_ids: Tensor | None = None,
        labelled: Tensor | None = None,
        targets: Tensor | None = None,
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
        if plan.by_document or document_ids is not None:
            call = BatchCall(self, args, kwargs, labelled)
            if (reason := call.describe(document_ids, targets)) is None:
                return self._by_document(call)
            leave_to_stock(plan, reason, document_ids is not None, self.training)
        if labelled is None:
            return super().forward(*args, **kwargs)
        return self._finished(BatchCall(self, args, kwargs, labelled))

    def _by_document(self, call: BatchCall) -> Any:
        plan = self.batch_plan
        if plan.layout is not None:
            call.unpad()
        if plan.positions is not None and plan.positions.per_document:
            call.restart_positions()
        return self._finished(call)

    def _finished(self, call: BatchCall) -> Any:
        if self.batch_plan.rows == "last_layer":
            call.others["labelled"] = call.labelled
        return call.finish(super().forward(**call.named, **call.others))


def leave_to_stock(plan: Any, reason: str, documents: bool, training: bool) -> None:
    """Warn that the stock code computes a call that isn't possible by document.

    A warning ends a compiled graph, so that generation in one graph gets none; a training step always does.

    Raises:
        SurgeryError: the call passes `document_ids`, or the kernel was asked for by name.
    """
    if documents:
        raise SurgeryError(f"document_ids: this call can't be computed by document, because {reason}")
    if plan.kernel not in (None, "auto"):
        raise SurgeryError(
            f"flash_attention kernel {plan.kernel!r} can't compute this call, because {reason}; "
            "with kernel 'auto' the stock code does"
        )
    name = "unpadding" if plan.layout is not None else "flash_attention"
    if training or not torch.compiler.is_compiling():
        _warn(f"{name}: the stock code computes this call, because {reason}")


@uncompiled
def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)
