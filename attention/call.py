"""One call of attention, and `visible`, the one definition of the keys that a query sees.

Dense masks and FlexAttention evaluate `visible`. The arguments of flash-attn and the block bounds of
FlexAttention restate it in other terms; tests compare them with it.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cadenza.attention.documents import Documents
from cadenza.surgery.errors import SurgeryError

# What transformers' models pass to an attention function. Kernels know the first four.
KNOWN = {"dropout", "is_causal", "scaling", "sliding_window"}
OWN = {"softcap", "s_aux"}  # only the model's own kernel knows a limit of the scores and sinks
IDLE = {  # no attention function reads them
    "cache_position",
    "deterministic",
    "input_ids",
    "labelled",
    "logits_to_keep",
    "num_items_in_batch",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "position_embeddings",
    "position_ids",
    "return_dict",
    "use_cache",
}


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
        own: options that only the model's own kernel knows: `softcap`, and `s_aux` for sinks.
    """

    module: Any
    bias: Any
    documents: Documents
    causal: bool
    window: int | None
    dropout: float
    scaling: float | None
    own: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stock(self) -> str:
        """The model's own implementation, `sdpa` or `eager`."""
        return self.module.attention_plan.stock

    @classmethod
    def of(cls, module: Any, documents: Documents, options: dict[str, Any]) -> "AttentionCall":
        """The call with the `options` that transformers passes to an attention function.

        Raises:
            SurgeryError: no kernel knows one of the options.
        """
        refuse_unknown(module, options, documents.passed)
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
            own={name: options[name] for name in OWN if options.get(name) is not None},
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


def refuse_unknown(module: Any, options: Mapping[str, Any], passed: Set[str] = frozenset()) -> None:
    """Raise if no kernel by document knows one of `options`, such as `position_bias`.

    Args:
        passed: names that the caller of the model passed along, which no attention function reads.
    """
    given = {name for name, value in options.items() if value is not None and value is not False}
    if unknown := sorted(given - KNOWN - OWN - IDLE - passed):
        raise SurgeryError(
            f"{type(module).__name__} passes {', '.join(unknown)} to attention, "
            "which attention by document doesn't know"
        )


def is_causal(module: Any, options: dict[str, Any]) -> bool:
    """Whether a call of `module` is causal: by its options, else by the attribute of the module."""
    causal = options.get("is_causal")
    return bool(getattr(module, "is_causal", True) if causal is None else causal)


def additive_mask(mask: Tensor | None, bias: Tensor | None, query: Tensor, stock: str) -> Tensor | None:
    """Mask and bias as one term to add to the scores, (1 or batch, 1 or heads, q, k); None if both are.

    The output of a query without a visible key is that of the `stock` implementation: zero in `sdpa`, the
    mean of all values in `eager`.
    """
    if mask is None:
        return None if bias is None else bias[None]
    if mask.dtype != torch.bool:
        return mask if bias is None else mask + bias
    # With -inf `eager` computes NaN. With the lowest number `sdpa` computes wrong gradients on a CPU, because
    # it restores probabilities from the log of their sum, which vanishes beside such a number.
    hidden = -torch.inf if stock == "sdpa" else torch.finfo(query.dtype).min
    return torch.where(mask, query.new_zeros(()) if bias is None else bias, query.new_full((), hidden))
