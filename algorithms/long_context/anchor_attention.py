"""AnchorAttention: documents of one long window share a single token, the anchor."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from cadenza.attention.anchor import MODES, Anchor
from cadenza.attention.document_ids import take_document_ids
from cadenza.attention.modules import base_models, is_attention, is_cross_attention
from cadenza.attention.plan import claim
from cadenza.attention.proof.claims import documents_are_apart, masks_are_known, mixes_by_attention
from cadenza.attention.proof.heads import prove_heads
from cadenza.attention.proof.subject import prove
from cadenza.attention.rotary.tables import refuse_scaling_by_length
from cadenza.attention.technique import AttentionSurgery
from cadenza.options import Choice, option
from cadenza.surgery.engine import Site
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.optimizers import Optimizers
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Undo

__all__ = ["AnchorAttention", "apply_anchor_attention"]


@dataclass(repr=False, eq=False)
class AnchorAttention(AttentionSurgery):
    """Trains on long windows of several documents: a token sees its own document up to itself, and the first
    token of the window, the anchor.

    Wang et al., "When Precision Meets Position" (arXiv 2411.13476). A batch of any size holds `document_ids`
    (batch, length): 0 in column 0 for the anchor (BOS, or EOS if the tokenizer has no BOS), 1, 2, ... for the
    documents, -1 for padding. Cost grows with the sum of squared document lengths, memory with the window.
    Without `document_ids`, as in inference, each row is one document, and the stock code computes it:
    weights, caches and generation stay stock.

    Use it to extend the context of a pretrained model. In the paper it gains 3.3 to 3.8 RULER points over
    full attention, and 1.5 to 2.0 over `intra_document` with `reset_positions`. Those are single runs, so
    compare the modes on your data.

    Works on any decoder whose tokens meet in attention alone (docs/families.md). It combines with
    `flash_attention` and `bf16_safe_rope`, but not with `alibi`. In mode `anchor` it refuses sliding windows,
    because they would hide the anchor.
    """

    mode: str = option(
        "anchor",
        "`anchor`, `intra_document` (the anchor is not visible) or `full` (boundaries are ignored).",
        Choice(*MODES),
    )
    reset_positions: bool = option(
        False, "Whether positions start anew in each document instead of counting through the window."
    )
    keeps_outputs = True
    claims = (mixes_by_attention, masks_are_known)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._anchor()  # refuses options that don't go together

    def _anchor(self) -> Anchor:
        return Anchor(self.mode, self.reset_positions)

    def finish(self, report: Report, survey: Any) -> Iterator[Undo]:
        if self.prove and report.changes and self.mode != "full":
            prove(report.model, documents_are_apart)
        yield from super().finish(report, survey)
        if self.prove and report.changes:
            prove_heads(report.model)

    def edit(self, site: Site) -> Iterator[Undo]:
        module: Any = site.module
        if is_attention(module) and not is_cross_attention(module):
            self._check(site.path, module)
            yield claim(module, documents=self._anchor())
        else:
            if self.reset_positions and module in base_models(module):
                refuse_scaling_by_length(module)
            yield from take_document_ids(site, packing=self._anchor())

    def _check(self, path: str, attention: Any) -> None:
        if not attention.is_causal:
            raise SurgeryError(
                f"{path}: {type(attention).__name__} is not causal; anchor_attention is for causal models, "
                "sequence_packing for encoders"
            )
        window = getattr(attention, "sliding_window", getattr(attention.config, "sliding_window", None))
        if window and self.mode == "anchor":  # some configs say 0 for none
            raise SurgeryError(
                f"{path}: a sliding window of {window} tokens hides the anchor; build the model "
                "with sliding_window=None, or choose mode intra_document"
            )


def apply_anchor_attention(
    model: nn.Module,
    mode: str = "anchor",
    reset_positions: bool = False,
    *,
    optimizers: Optimizers = None,
    prove: bool = True,
) -> Report:
    """Let `model` accept windows of documents with an anchor, in place; see `AnchorAttention`.

    Raises:
        NoEffect: the model has no attention on transformers' attention interface.
        SurgeryError: the mode is unknown, attention is not causal, a sliding window hides the anchor, or a
            model of no tested family can't prove that it keeps documents apart.
        Conflict: `sequence_packing` or `alibi` has been applied.
    """
    return AnchorAttention(mode, reset_positions, prove=prove).operate(model, optimizers)
