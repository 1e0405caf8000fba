"""Attention by document with the model's own kernel, one call for each run of equally long documents."""

import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from cadenza.attention.call import AttentionCall, additive_mask
from cadenza.attention.kernels.anchors import copies
from cadenza.surgery.retype import stock_class

MANY = 8  # calls of an attention, beyond which the host is slower than a GPU
SHAPELESS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def stock_kernel(module: Any, stock: str) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """The attention function of the stock model, whose implementation is `sdpa` or `eager`."""
    if stock == "sdpa":
        return ALL_ATTENTION_FUNCTIONS["sdpa"]
    return sys.modules[stock_class(module).__module__].eager_attention_forward


def stock(call: AttentionCall, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The model's own kernel, one call for each run of equally long documents.

    Args:
        query, key, value: (1, total, heads, head_dim).

    Returns:
        (1, total, heads, head_dim).
    """
    if query.is_cuda and len(call.documents.runs) > MANY and call.module.attention_plan.kernel is None:
        _warn_of_many_calls()
    with _without_plans(query):
        return _by_runs(call, query, key, value)


@cache
def _warn_of_many_calls() -> None:
    warnings.warn(
        f"a batch has documents of more than {MANY} lengths, and each layer calls the model's own attention "
        "once for each length, which is slow on a GPU: flash_attention computes all of them at once",
        stacklevel=2,
    )


def _without_plans(query: Tensor) -> AbstractContextManager:
    """On CUDA, any kernel of SDPA but cuDNN's, which makes a plan for each shape, and lengths differ."""
    return sdpa_kernel(SHAPELESS) if query.is_cuda else nullcontext()


def _by_runs(call: AttentionCall, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    documents, tokens = call.documents, [x.squeeze(0) for x in (query, key, value)]
    runs = zip(*(documents.split(x) for x in tokens), strict=True)
    if documents.anchors:
        counts = [count for count, _ in documents.runs]
        anchors = (copies(x, documents)[:, None].split(counts) for x in tokens)
        fronts = zip(*anchors, strict=True)
        outputs = [_behind_anchors(call, front, run) for front, run in zip(fronts, runs, strict=True)]
    else:
        outputs = [_dense(call, *run).flatten(0, 1) for run in runs]
    return (outputs[0] if len(outputs) == 1 else torch.cat(outputs))[None]  # `cat` would copy


def _behind_anchors(call: AttentionCall, anchors: tuple, documents: tuple) -> Tensor:
    """(documents * length, heads, head_dim), computed with a copy of its anchor in front of each document.

    A copy attends to itself alone, so it computes what the anchor does; its output is dropped.

    Args:
        anchors: query, key and value, (documents, 1, heads, head_dim).
        documents: query, key and value, (documents, length, heads, head_dim).
    """
    whole = [torch.cat(pair, dim=1) for pair in zip(anchors, documents, strict=True)]
    return _dense(call, *whole)[:, 1:].flatten(0, 1)


def _dense(call: AttentionCall, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(documents, length, heads, head_dim) in and out."""
    # (documents, heads, length, head_dim)
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    mask = _additive(call, query, key)
    causal = call.causal and mask is None
    grouped = key.shape[1] != query.shape[1] and not call.own
    if call.stock == "sdpa" and not query.is_cuda and grouped:
        # With `enable_gqa` torch 2.7 on a CPU materializes the scores: 3x the time, and quadratic memory.
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
        options = {"dropout_p": call.dropout, "is_causal": causal, "scale": call.scaling}
        return F.scaled_dot_product_attention(query, key, value, mask, **options).transpose(1, 2)
    options = {"dropout": call.dropout, "scaling": call.scaling, "is_causal": causal, **call.own}
    return stock_kernel(call.module, call.stock)(call.module, query, key, value, mask, **options)[0]


def _additive(call: AttentionCall, query: Tensor, key: Tensor) -> Tensor | None:
    """(1, 1 or heads, length, length) to add to the scores; None if there is nothing to add.

    It depends only on distances, so it is made once a batch for the longest document; others take its corner.
    """
    length, longest = query.shape[-2], call.documents.longest + bool(call.documents.anchors)
    eager = call.causal and call.stock == "eager"
    if call.bias is None and not eager and (call.window is None or call.window >= longest):
        return None
    name = "additive", call.bias, call.causal, call.window, query.shape[1], query.dtype
    whole = call.documents.once(name, lambda: _of_length(call, query, key, longest))
    return None if whole is None else whole[:, :, :length, :length]


def _of_length(call: AttentionCall, query: Tensor, key: Tensor, length: int) -> Tensor | None:
    seen, bias = call.within(length, query.device), None
    if call.bias is not None:
        q, k = (x[:, :, :1].expand(-1, -1, length, -1) for x in (query, key))
        bias = call.bias(q, k)
    return additive_mask(None if bool(seen.all()) else seen[None, None], bias, query, call.stock)
