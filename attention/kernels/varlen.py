"""Attention by document with the FlashAttention 2 that torch contains: one call for all documents.

It needs no package besides torch, but torch builds it without ALiBi.
"""

from typing import Any

import torch
from torch import Tensor

from cadenza.attention.call import AttentionCall
from cadenza.attention.kernels.anchors import behind_anchors
from cadenza.attention.kernels.flash import read


def operator() -> Any:
    """The operator behind SDPA's flash kernel and `torch.nn.attention.varlen`; autograd knows it."""
    return torch.ops.aten._flash_attention_forward


def varlen(call: AttentionCall, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Torch's flash attention on documents back to back; shapes as in `sdpa.stock`."""
    query, key, value = (x.squeeze(0) for x in (query, key, value))  # (total, heads, head_dim)
    if call.documents.anchored:
        key, value = (behind_anchors(x, call.documents) for x in (key, value))
    named, _ = read(call, query.shape[1])
    left, right = named["window_size"]
    output, *_ = operator()(
        *(query, key, value),
        *(named[f"{name}_{of}"] for name in ("cu_seqlens", "max_seqlen") for of in "qk"),
        call.dropout,
        named["causal"],
        False,  # no debug mask
        scale=call.scaling,
        window_size_left=None if left < 0 else left,
        window_size_right=None if right < 0 else right,
    )
    return output[None]
