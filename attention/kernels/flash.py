"""Attention by document with FlashAttention 2: one call for all documents."""

from typing import Any

from torch import Tensor

from cadenza.attention.call import AttentionCall
from cadenza.attention.kernels import anchors
from cadenza.attention.kernels.anchors import behind_anchors


def arguments(call: AttentionCall) -> dict[str, Any]:
    """The arguments of flash-attn that define which keys a query sees, by flash-attn's names.

    flash-attn aligns the last query of a document to its last key. Query i of n sees key j of m if
    -left <= j - (i + m - n) <= right, where -1 means no bound, and, in a causal call, if j <= i + m - n.
    The keys of documents with anchors are those of `behind_anchors`: a copy of the anchor comes first.
    """
    documents, anchored = call.documents, call.documents.anchored
    reach = -1 if call.window is None else call.window - 1
    return {
        "cu_seqlens_q": documents.cu_seqlens,
        "cu_seqlens_k": documents.anchored_cu_seqlens if anchored else documents.cu_seqlens,
        "max_seqlen_q": documents.longest,
        "max_seqlen_k": documents.longest + anchored,
        "causal": call.causal,
        "window_size": (reach, 0 if call.causal else reach),
    }


def flash(call: AttentionCall, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """FlashAttention 2 (Dao, arXiv 2307.08691). Shapes as in `cadenza.attention.kernels.sdpa.stock`."""
    from flash_attn import flash_attn_varlen_func  # pyright: ignore[reportMissingImports]

    query, key, value = (x.squeeze(0) for x in (query, key, value))  # (total, heads, head_dim)
    if call.documents.anchored:
        key, value = (behind_anchors(x, call.documents) for x in (key, value))
    named, alibi_slopes = read(call, query.shape[1])
    options = {"dropout_p": call.dropout, "softmax_scale": call.scaling, "alibi_slopes": alibi_slopes}
    return flash_attn_varlen_func(query, key, value, **named, **options)[None]


def read(call: AttentionCall, heads: int) -> tuple[dict[str, Any], Tensor | None]:
    """`arguments` and `slopes`, which depend on the batch; what `behind_anchors` reads is made as well."""
    if call.documents.anchored:
        anchors.read(call.documents)
    named = call.documents.once(("arguments", call.causal, call.window), lambda: arguments(call))
    return named, slopes(call, heads)


def slopes(call: AttentionCall, heads: int) -> Tensor | None:
    """The slopes of ALiBi, (heads,) float32; None without it."""
    if call.bias is None:
        return None
    device = call.documents.device
    return call.documents.once(("slopes", call.bias, heads), lambda: call.bias.slopes(heads, device).float())
