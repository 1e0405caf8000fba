"""The plans, whose fields techniques claim: one on each attention module, and one on the base model."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from torch import Tensor

from cadenza.attention.anchor import Anchor
from cadenza.attention.rotary.query_key import HeadNorm
from cadenza.attention.rotary.rotation import Rotation
from cadenza.attention.rotary.tables import ExactRope
from cadenza.attention.rotary.unrotated import NoRotation
from cadenza.surgery.errors import Conflict
from cadenza.surgery.retype import Undo

Bias = Callable[[Tensor, Tensor], Tensor]
"""(query (..., heads, q, d), key (..., k, d)) -> a term (heads, q, k) to add to the scores."""


@dataclass(frozen=True)
class Plan:
    """A field for each claim; None if the field isn't claimed.

    Args:
        stock: the model's own attention implementation, `sdpa` or `eager`.
    """

    stock: str

    def claims(self) -> list[str]:
        """The claimed fields, as `field=value`."""
        taken = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "stock"}
        return [f"{name}={value!r}" for name, value in taken.items() if value is not None]


@dataclass(frozen=True)
class AttentionPlan(Plan):
    """The plan of an attention module.

    Args:
        positions: how positions enter: a bias to add to the scores, a rotation, or not at all.
        norm: a norm of each query and key, before positions.
        window: a query sees only keys at a distance below it.
        kernel: a name in `cadenza.attention.kernels.table`; it computes by document, without padding.
        documents: what a document sees of other documents.
    """

    positions: Bias | ExactRope | Rotation | NoRotation | None = None
    norm: HeadNorm | None = None
    window: int | None = None
    kernel: str | None = None
    documents: Anchor | None = None

    @property
    def bias(self) -> Bias | None:
        """`positions`, if it is a bias."""
        return None if isinstance(self.positions, ExactRope | Rotation | NoRotation) else self.positions

    @property
    def rope(self) -> ExactRope | None:
        """`positions`, if the model itself rotates."""
        return self.positions if isinstance(self.positions, ExactRope) else None

    @property
    def rotation(self) -> Rotation | None:
        """`positions`, if the seam rotates."""
        return self.positions if isinstance(self.positions, Rotation) else None


@dataclass(frozen=True)
class BatchPlan(Plan):
    """The plan of a base model.

    Args:
        positions: a rotation, and whether its positions count by document.
        window: some layers see only keys at a distance below it, so they need the keys' positions.
        kernel: the layers compute by document.
        layout: `unpadded`: the layers compute on real tokens only.
        packing: batches may contain `document_ids`; an `Anchor` defines what a document sees.
        rows: where to select the labelled rows, `last_layer` or `output`.
    """

    positions: ExactRope | Rotation | None = None
    window: int | None = None
    kernel: str | None = None
    layout: str | None = None
    packing: bool | Anchor | None = None
    rows: str | None = None

    @property
    def by_document(self) -> bool:
        """Whether every batch is computed by document, with `document_ids` or without."""
        return self.kernel is not None or self.layout is not None


def plan_of(module: Any) -> Any:
    """The plan of `module`; None if it has none."""
    own = vars(module)
    return own.get("attention_plan") or own.get("batch_plan")


def claim(module: Any, **values: Any) -> Undo:
    """Claim fields of the plan of `module`, once the seam is open.

    Raises:
        Conflict: another technique claimed the field, or a field that excludes one of these values.
    """
    name = "attention_plan" if "attention_plan" in vars(module) else "batch_plan"
    plan = getattr(module, name)
    for field in values:
        if (owner := getattr(plan, field)) is not None:
            raise Conflict(f"attention {field}: taken by {owner!r}; undo that first")
    claimed = replace(plan, **values)
    _check_combination(claimed)
    setattr(module, name, claimed)

    def undo() -> None:
        setattr(module, name, replace(getattr(module, name), **dict.fromkeys(values)))

    return undo


def _check_combination(plan: Any) -> None:
    anchor = getattr(plan, "documents", None)
    if anchor is not None and plan.bias is not None:
        raise Conflict("alibi has no distance to the anchor of anchor_attention; undo one of them first")
    if anchor is not None and anchor.reset_positions and isinstance(plan.positions, NoRotation):
        raise Conflict("drop_rope leaves no positions: leave reset_positions of anchor_attention out")
    if anchor is not None and anchor.mode == "anchor" and plan.window is not None:
        raise Conflict("a sliding window hides the anchor of anchor_attention; undo one of them first")
