"""Attention by document with FlexAttention: the mask is a function, and invisible blocks are skipped."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from cadenza.attention.call import AttentionCall, visible
from cadenza.attention.kernels.flash import slopes

BLOCK = 128
# Below 128 tokens torch takes a kernel for decoding, which doesn't compile for some groups of heads.
TRITON = {"FORCE_USE_FLEX_ATTENTION": True}


def flex(
    call: AttentionCall, query: Tensor, key: Tensor, value: Tensor, options: Mapping[str, Any] = TRITON
) -> Tensor:
    """FlexAttention (Dong et al., arXiv 2412.05496); its block mask is made once a batch.

    Shapes as in `cadenza.attention.kernels.sdpa.stock`.
    """
    mask, slopes_of_heads = read(call, query.shape[2])
    output: Any = _flex_attention(query.device)(
        *(x.transpose(1, 2) for x in (query, key, value)),
        score_mod=_score_mod(slopes_of_heads),
        block_mask=mask,
        scale=call.scaling,
        enable_gqa=query.shape[2] != key.shape[2],
        kernel_options=dict(options),
    )
    return output.transpose(1, 2)


def fa4(call: AttentionCall, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """FlexAttention on its FlashAttention 4 backend. Shapes as in `sdpa.stock`."""
    return flex(call, query, key, value, {"BACKEND": "FLASH"})


def read(call: AttentionCall, heads: int) -> tuple[Any, Tensor | None]:
    """The `BlockMask` and the slopes of ALiBi, which depend on the batch."""
    key = "block_mask", call.causal, call.window
    return call.documents.once(key, lambda: block_mask(call)), slopes(call, heads)


def _flex_attention(device: torch.device) -> Callable:
    """FlexAttention, compiled on CUDA; in a compiled layer it becomes a part of its graph."""
    from torch.nn.attention.flex_attention import flex_attention

    return _compiled() if device.type == "cuda" and not torch.compiler.is_compiling() else flex_attention


@cache
def _compiled() -> Callable:
    from torch.nn.attention.flex_attention import flex_attention

    # `dynamic`: the number of tokens differs from batch to batch. `fullgraph`: after too many compilations
    # torch would silently run it uncompiled, which materializes the scores.
    return torch.compile(flex_attention, dynamic=True, fullgraph=True)


def block_mask(call: AttentionCall) -> Any:
    """The `BlockMask`: which blocks of keys a block of queries sees, and the mask within a block."""
    from torch.nn.attention.flex_attention import BlockMask

    documents = call.documents
    anchor = documents.anchor_of_token if documents.anchors else None
    seen = {"causal": call.causal, "window": call.window, "document": documents.of_token, "anchor": anchor}

    def mask(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return visible(q, k, **seen)

    live, full = live_blocks(call), full_blocks(call)
    sizes = {"BLOCK_SIZE": BLOCK, "seq_lengths": (documents.total, documents.total)}
    return BlockMask.from_kv_blocks(*_listed(live & ~full), *_listed(full), mask_mod=mask, **sizes)


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Of (blocks, blocks): how many each row has, (1, 1, blocks), and their columns, which come first."""
    counts = blocks.sum(-1, dtype=torch.int32)
    return counts[None, None], blocks.int().argsort(dim=-1, descending=True, stable=True).int()[None, None]


def full_blocks(call: AttentionCall) -> Tensor:
    """(blocks, blocks), True where each of 128 queries sees each of 128 keys, so that no mask is computed."""
    documents = call.documents
    first = torch.arange(0, documents.total, BLOCK, device=documents.device)
    whole = first + BLOCK <= documents.total
    last = (first + BLOCK).clamp(max=documents.total) - 1
    start, end = documents.of_token[first], documents.of_token[last]
    inside = torch.where(whole & (start == end), start, -1)  # the document that the block is a part of
    full = (inside[:, None] == inside) & (inside >= 0)
    if call.causal:
        full &= last <= first[:, None]
    if call.window is not None:
        farthest = torch.maximum(last[:, None] - first, last - first[:, None])
        full &= farthest < call.window
    return full


def live_blocks(call: AttentionCall) -> Tensor:
    """(blocks, blocks), True where a block of 128 queries may see a block of 128 keys.

    Computed from the documents' ends, without the (total, total) mask, which takes 4 GB at 65,536 tokens.
    """
    documents, total = call.documents, call.documents.total
    first = torch.arange(0, total, BLOCK, device=documents.device)
    last = (first + BLOCK).clamp(max=total) - 1
    starts, of_token = documents.cu_seqlens.long(), documents.of_token.long()
    low, high = starts[of_token[first]], starts[of_token[last] + 1] - 1
    if call.window is not None:
        low, high = torch.maximum(low, first - call.window + 1), torch.minimum(high, last + call.window - 1)
    if call.causal:
        high = torch.minimum(high, last)
    column = torch.arange(len(first), device=documents.device)[None]
    live = (low[:, None] // BLOCK <= column) & (column <= high[:, None] // BLOCK)
    if documents.anchors:  # the anchor of the first query; anchors of later queries are in this block
        live |= column == documents.anchor_of_token[first][:, None] // BLOCK
    return live


def _score_mod(slopes_of_heads: Tensor | None) -> Callable | None:
    if slopes_of_heads is None:
        return None

    def alibi(score: Tensor, batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        # In float32, exact below 2^24 tokens: integers take twice the instructions, for each score.
        return score - slopes_of_heads[head] * (q.to(torch.float32) - k.to(torch.float32)).abs()

    return alibi
