"""Attention by document: each kernel's way to compute it, on tokens that stand back to back."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from cadenza.surgery.documents import Documents
from cadenza.surgery.retype import stock_class


@dataclass(frozen=True)
class Varlen:
    """What is asked of a kernel besides query, key and value.

    Args:
        bias: what is added to the scores. It depends on the distance of two tokens alone.
        causal: no query sees a later key.
        window: a query sees keys at a distance below it; None: all.
    """

    module: Any
    bias: Any
    documents: Documents
    causal: bool
    window: int | None
    dropout: float
    scaling: float | None

    @classmethod
    def of(cls, module: Any, bias: Any, documents: Documents, options: dict[str, Any]) -> "Varlen":
        """From the options that transformers passes to an attention function."""
        causal = options.get("is_causal")
        return cls(
            module=module,
            bias=bias,
            documents=documents,
            causal=bool(getattr(module, "is_causal", True) if causal is None else causal),
            window=options.get("sliding_window"),
            dropout=options.get("dropout", 0.0),
            scaling=options.get("scaling"),
        )


def stock_kernel(module: Any) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """The model's own attention function."""
    if module.attention_plan.stock == "sdpa":
        return ALL_ATTENTION_FUNCTIONS["sdpa"]
    return sys.modules[stock_class(module).__module__].eager_attention_forward


def stock(call: Varlen, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The model's own kernel, once for each run of equally long documents.

    Args:
        query, key, value: (1, total, heads, head_dim).

    Returns:
        (1, total, heads, head_dim).
    """
    runs = call.documents.runs
    if call.documents.anchors:
        return _behind_anchors(call, query, key, value)
    if len(runs) == 1:  # without `split` and `cat`, which would copy
        whole = (tensor.view(*runs[0], *tensor.shape[2:]) for tensor in (query, key, value))
        return _dense(call, *whole).flatten(0, 1)[None]
    sizes = [count * length for count, length in runs]
    # `split`, because the backward of a slice writes zeros of the full size, for each slice.
    parts = [tensor.squeeze(0).split(sizes) for tensor in (query, key, value)]
    outputs = [
        _dense(call, *(part.view(*run, *part.shape[1:]) for part in qkv))
        for run, *qkv in zip(runs, *parts, strict=True)
    ]
    return torch.cat([output.flatten(0, 1) for output in outputs])[None]


def _behind_anchors(call: Varlen, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Each document with a copy of its anchor in front, for each run of equally long ones.

    A copy attends to itself alone, so it computes what the anchor does; its output is dropped.
    """
    documents = call.documents
    sizes = [count * length for count, length in documents.runs]
    firsts = [0, *accumulate(count for count, _ in documents.runs)]
    parts = [tensor.squeeze(0).split(sizes) for tensor in (query, key, value)]
    heads = [tensor.squeeze(0).index_select(0, documents.anchor_tokens) for tensor in (query, key, value)]
    outputs = []
    for (count, length), first, *qkv in zip(documents.runs, firsts[:-1], *parts, strict=True):
        fronts = [head[first : first + count, None] for head in heads]
        bodies = [part.view(count, length, *part.shape[1:]) for part in qkv]
        whole = [torch.cat(pair, dim=1) for pair in zip(fronts, bodies, strict=True)]
        outputs.append(_dense(call, *whole)[:, 1:].flatten(0, 1))
    return torch.cat(outputs)[None]


def _dense(call: Varlen, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(documents, length, heads, head_dim) in and out."""
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    mask = _additive(call, query, key)
    causal = call.causal and mask is None
    if call.module.attention_plan.stock == "sdpa" and not query.is_cuda and key.shape[1] != query.shape[1]:
        # Told of groups, torch 2.7 on a CPU materializes the scores: 3x the time, and quadratic memory.
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
        options = {"dropout_p": call.dropout, "is_causal": causal, "scale": call.scaling}
        return F.scaled_dot_product_attention(query, key, value, mask, **options).transpose(1, 2)
    options = {"dropout": call.dropout, "scaling": call.scaling, "is_causal": causal}
    return stock_kernel(call.module)(call.module, query, key, value, mask, **options)[0]


def _additive(call: Varlen, query: Tensor, key: Tensor) -> Tensor | None:
    """(1, 1 or heads, length, length) to add to the scores; None where there's nothing to add.

    It depends on distances alone, so that of a document is the corner of that of the longest, which is made
    once a batch.
    """
    length, longest = query.shape[-2], call.documents.longest + bool(call.documents.anchors)
    eager = call.causal and call.module.attention_plan.stock == "eager"
    if call.bias is None and not eager and (call.window is None or call.window >= longest):
        return None
    name = "additive", call.bias, call.causal, call.window, query.shape[1], query.dtype
    whole = call.documents.once(name, lambda: _of_length(call, query, key, longest))
    return None if whole is None else whole[:, :, :length, :length]


def _of_length(call: Varlen, query: Tensor, key: Tensor, length: int) -> Tensor | None:
    at = torch.arange(length, device=query.device)
    distance = at[:, None] - at[None, :]
    seen = torch.ones_like(distance, dtype=torch.bool)
    if call.causal:
        seen &= distance >= 0
    if call.window is not None:
        seen &= distance.abs() < call.window
    bias = None
    if call.bias is not None:
        q, k = (x[:, :, :1].expand(-1, -1, length, -1) for x in (query, key))
        bias = call.bias(q, k)
    return added(None if bool(seen.all()) else seen[None, None], bias, query)


def added(mask: Tensor | None, bias: Tensor | None, query: Tensor) -> Tensor | None:
    """Mask and bias as one term to add to the scores, (1 or batch, 1 or heads, q, k)."""
    if mask is None:
        return None if bias is None else bias[None]
    if mask.dtype != torch.bool:
        return mask if bias is None else mask + bias
    # The dtype's lowest number and not -inf: a row that sees nothing must not become NaN.
    lowest = torch.tensor(torch.finfo(query.dtype).min, dtype=query.dtype, device=query.device)
    return torch.where(mask, query.new_zeros(()) if bias is None else bias, lowest)


def flash(call: Varlen, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """FlashAttention 2 (Dao, arXiv 2307.08691): one call for all documents. Shapes as in `stock`."""
    from flash_attn import flash_attn_varlen_func  # pyright: ignore[reportMissingImports]

    documents = call.documents
    starts, longest = documents.cu_seqlens, documents.longest
    reach = -1 if call.window is None else call.window - 1
    # With queries aligned to the last keys, a causal call lets each see the anchor in front.
    keys = documents.anchored_keys if documents.anchors else None
    ends = starts if keys is None else documents.anchored_cu_seqlens
    return flash_attn_varlen_func(
        query.squeeze(0),
        *(x.squeeze(0) if keys is None else x.squeeze(0).index_select(0, keys) for x in (key, value)),
        *(starts, ends, longest, longest + (keys is not None)),
        dropout_p=call.dropout,
        softmax_scale=call.scaling,
        causal=call.causal,
        window_size=(reach, 0 if call.causal else reach),
        alibi_slopes=None if call.bias is None else call.bias.slopes(query.shape[2], query.device).float(),
    )[None]


def flex(call: Varlen, query: Tensor, key: Tensor, value: Tensor, backend: str | None = None) -> Tensor:
    """FlexAttention (Dong et al., arXiv 2412.05496), its block mask made once a batch. Shapes: `stock`."""
    documents = call.documents
    name = "block_mask", call.causal, call.window
    block_mask = documents.once(name, lambda: _block_mask(call))
    output: Any = _flex_attention(query.is_cuda)(
        *(x.transpose(1, 2) for x in (query, key, value)),
        score_mod=_score_mod(call, query),
        block_mask=block_mask,
        scale=call.scaling,
        enable_gqa=query.shape[2] != key.shape[2],
        kernel_options=None if backend is None else {"BACKEND": backend},
    )
    return output.transpose(1, 2)


def fa4(call: Varlen, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """FlexAttention on its FlashAttention 4 backend. Shapes as in `stock`."""
    return flex(call, query, key, value, backend="FLASH")


@cache
def _flex_attention(compiled: bool) -> Callable:
    from torch.nn.attention.flex_attention import flex_attention

    # The number of tokens differs from batch to batch. Uncompiled it materializes the scores, and without
    # `fullgraph` torch falls back to that, in silence, where it has compiled too often.
    return torch.compile(flex_attention, dynamic=True, fullgraph=True) if compiled else flex_attention


BLOCK = 128


def _block_mask(call: Varlen) -> Any:
    from torch.nn.attention.flex_attention import BlockMask

    document, causal, window = call.documents.of_token, call.causal, call.window
    anchor = call.documents.anchor_of_token if call.documents.anchors else None

    def seen(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        see = document[q] == document[k]
        if anchor is not None:
            see = see | (anchor[q] == k)
        if causal:
            see = see & (q >= k)
        if window is not None:
            see = see & ((q - k).abs() < window)
        return see

    live = live_blocks(call)
    counts, indices = (
        live.sum(-1, dtype=torch.int32),
        live.int().argsort(dim=-1, descending=True, stable=True),
    )
    sizes = {"BLOCK_SIZE": BLOCK, "seq_lengths": (len(document), len(document))}
    return BlockMask.from_kv_blocks(counts[None, None], indices[None, None].int(), mask_mod=seen, **sizes)


def live_blocks(call: Varlen) -> Tensor:
    """(blocks, blocks), True where a block of 128 queries may see one of 128 keys.

    From the documents' ends: the (total, total) mask, 4 GB at 65,536 tokens, is never there.
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
    if documents.anchors:  # that of a block's first token; later ones stand in the block itself
        live |= column == documents.anchor_of_token[first][:, None] // BLOCK
    return live


def _score_mod(call: Varlen, query: Tensor) -> Callable | None:
    if call.bias is None:
        return None
    key = "slopes", call.bias, query.shape[2]
    slopes = call.documents.once(key, lambda: call.bias.slopes(query.shape[2], query.device).float())

    def alibi(score: Tensor, batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return score - slopes[head] * (q - k).abs()

    return alibi
