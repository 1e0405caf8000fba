"""One call of attention, and `visible`, the one definition of the keys that a query sees.

Dense masks and FlexAttention evaluate `visible`. The arguments of flash-attn and the block bounds of
FlexAttention restate it in other terms; tests compare them with it.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cadenza.attention.documents import Documents


def visible(
    q: Tensor,
    k: Tensor,
    *,
    causal: bool,
    window: int | None = None,
    document: Tensor | None = None,
    anchor: Tensor | None = None,
) -> Tensor:
    """Whether the query at place `q` sees the key at place `k`, bool of their broadcast shape.

    Args:
        q, k: places in a row of tokens, integers.
        causal: no query sees a later key.
        window: a query sees only keys at a distance below it; None: no limit.
        document: (tokens,) the document of each place; None: all places are one document.
        anchor: (tokens,) a place outside of its document that each place sees; None: there is none.
    """
    seen = torch.ones_like(q - k, dtype=torch.bool) if document is None else document[q] == document[k]
    if anchor is not None:
        seen = seen | (anchor[q] == k)
    if causal:
        seen = seen & (q >= k)
    if window is not None:
        seen = seen & ((q - k).abs() < window)
    return seen


@dataclass(frozen=True)
class AttentionCall:
    """The arguments of a kernel besides query, key and value.

    Args:
        module: the attention module.
        bias: a term to add to the scores, or None; it depends only on the distance of two tokens.
        documents: the documents of the batch, back to back.
        causal, window: as in `visible`.
        dropout: the share of probabilities to drop.
        scaling: the factor of the scores; None: 1 / sqrt(head_dim).
    """

    module: Any
    bias: Any
    documents: Documents
    causal: bool
    window: int | None
    dropout: float
    scaling: float | None

    @classmethod
    def of(cls, module: Any, documents: Documents, options: dict[str, Any]) -> "AttentionCall":
        """The call with the `options` that transformers passes to an attention function."""
        plan = module.attention_plan
        windows = [w for w in (options.get("sliding_window"), plan.window) if w is not None]
        return cls(
            module=module,
            bias=plan.bias,
            documents=documents,
            causal=is_causal(module, options),
            window=min(windows, default=None),
            dropout=options.get("dropout", 0.0),
            scaling=options.get("scaling"),
        )

    def visible(self, q: Tensor, k: Tensor) -> Tensor:
        """`visible` for places in the row of all documents."""
        document = self.documents.of_token
        anchor = self.documents.anchor_of_token if self.documents.anchors else None
        return visible(q, k, causal=self.causal, window=self.window, document=document, anchor=anchor)

    def within(self, length: int, device: torch.device) -> Tensor:
        """(length, length), `visible` within a document of that length."""
        at = torch.arange(length, device=device)
        return visible(at[:, None], at[None, :], causal=self.causal, window=self.window)


def is_causal(module: Any, options: dict[str, Any]) -> bool:
    """Whether a call of `module` is causal: by its options, else by the attribute of the module."""
    causal = options.get("is_causal")
    return bool(getattr(module, "is_causal", True) if causal is None else causal)


def additive_mask(mask: Tensor | None, bias: Tensor | None, query: Tensor) -> Tensor | None:
    """Mask and bias as one term to add to the scores, (1 or batch, 1 or heads, q, k); None if both are."""
    if mask is None:
        return None if bias is None else bias[None]
    if mask.dtype != torch.bool:
        return mask if bias is None else mask + bias
    # The lowest number, not -inf: a row without a visible key must not become NaN.
    lowest = torch.tensor(torch.finfo(query.dtype).min, dtype=query.dtype, device=query.device)
    return torch.where(mask, query.new_zeros(()) if bias is None else bias, lowest)
