"""The attention seam: `attend` is the function that every attention module of a model calls.

Transformers (from version 5) looks attention up in two public registries, `AttentionInterface` and
`AttentionMaskInterface`. The seam registers one function in each, by the names in `modules.py`; without the
second, transformers would silently drop the padding mask. Each call of `attend` does the following.

1. It reads the module's plan, whose fields techniques claim (`cadenza.attention.plan`).
2. It normalizes and rotates query and key, if that is claimed (`cadenza.attention.rotary.query_key`).
3. It rounds query and key to the model's dtype, if an exact rotation has made them wider.
4. Under autocast on a CPU it widens query, key and value to float32 for SDPA.
5. If the base model passes documents, the claimed kernel computes by document (`by_document`).
6. Else the stock kernel runs, on the stock mask plus a claimed bias or window.

The obvious way, a new `forward` for each attention class, breaks when transformers changes, and serves one
technique at a time. The cost here: a model must use the registries, with `sdpa` or `eager`.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from cadenza.attention.call import AttentionCall, additive_mask, is_causal, visible
from cadenza.attention.documents import Documents
from cadenza.attention.kernels.sdpa import stock_kernel
from cadenza.attention.kernels.table import run
from cadenza.attention.modules import SEAMS, STOCK, is_cross_attention
from cadenza.attention.plan import AttentionPlan, plan_of
from cadenza.attention.proof.watch import seam_mask, watch_of
from cadenza.attention.rotary.query_key import prepared
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.runtime import autocast_dtype


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """Attention by the plan of `module`.

    Args:
        query: (batch, heads, q, head_dim).
        key, value: (batch, key_value_heads, k, head_dim).
        attention_mask: (batch, 1, q, k), True where a query sees a key, or floats to add to the scores. None:
            a query sees all keys, or all up to its own position if the call is causal.

    Returns:
        The output (batch, q, heads, head_dim), and the attention weights if the stock kernel returns them.
    """
    plan: AttentionPlan | None = plan_of(module)
    if plan is None:  # a new model, made from the config of a changed one
        plan = AttentionPlan(STOCK[module.config._attn_implementation])
    query, key = prepared(module, plan, query, key, kwargs)
    if plan.rope is not None:  # rotated in float32 or wider
        query, key = query.to(value.dtype), key.to(value.dtype)
    if plan.stock == "sdpa" and query.device.type == "cpu" and autocast_dtype(query) is not None:
        return _in_float32(module, plan, query, key, value, attention_mask, kwargs)
    return _attend(module, plan, query, key, value, attention_mask, kwargs)


def _in_float32(
    module: Any,
    plan: AttentionPlan,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    kwargs: dict[str, Any],
) -> tuple[Tensor, Tensor | None]:
    """Attention under autocast on a CPU: SDPA in half precision is slower there, and its gradients worse."""
    if mask is not None and mask.is_floating_point():
        mask = mask.float()
    with torch.autocast("cpu", enabled=False):
        query, key = query.float(), key.float()
        output, weights = _attend(module, plan, query, key, value.float(), mask, kwargs)
    return output.to(value.dtype), weights


def _attend(
    module: Any,
    plan: AttentionPlan,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    kwargs: dict[str, Any],
) -> tuple[Tensor, Tensor | None]:
    if (documents := kwargs.pop("documents", None)) is not None:
        return by_document(module, query, key, value, attention_mask, documents, kwargs)
    if attention_mask is not None and attention_mask.shape[-1] == 0:  # what stands for documents
        raise SurgeryError(
            f"{type(module).__name__} gets no documents: a layer hands no keyword arguments on"
        )
    if (watch := watch_of(module)) is not None:
        watch.calls.append((module, kwargs, attention_mask))
        if watch.seen is not None:
            plan, attention_mask = AttentionPlan(plan.stock), watch.seen[None, None]
    if plan.stock == "sdpa" and plan.bias is None and plan.window is None:
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, attention_mask, **kwargs)
    mask = _mask(plan, query, key, attention_mask, is_causal(module, kwargs))
    bias = None if plan.bias is None else plan.bias(query, key)
    mask = additive_mask(mask, bias, query, plan.stock)
    return stock_kernel(module, plan.stock)(module, query, key, value, mask, **kwargs)


def by_document(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    documents: Documents,
    options: dict[str, Any],
) -> tuple[Tensor, None]:
    """Attention within each document. Padding isn't computed; its output is zero.

    Shapes as in `attend`. With unpadded tokens the batch is 1.
    """
    if is_cross_attention(module):
        raise SurgeryError("cross-attention can't be computed by document")
    if mask is not None and mask.shape[-1]:
        name = type(module).__name__
        raise SurgeryError(f"{name} gets a mask that the model made itself; attention by document ignores it")
    batch, _, length, _ = query.shape
    call = AttentionCall.of(module, documents, options)
    tokens = [documents.gather(x.transpose(1, 2)) for x in (query, key, value)]  # (1, total, heads, head_dim)
    output = run(module.attention_plan.kernel, call, *tokens)
    return documents.scatter(output, batch, length), None


def _mask(
    plan: AttentionPlan, query: Tensor, key: Tensor, mask: Tensor | None, causal: bool
) -> Tensor | None:
    """`mask` with a claimed window, and with the causal mask where transformers leaves that to the kernel."""
    q, k = query.shape[-2], key.shape[-2]
    at = torch.arange(k, device=query.device)
    if mask is None and causal and q > 1:
        # Transformers passes no causal mask only if queries and keys start at the same position.
        mask = visible(at[:q, None], at[None, :], causal=True)[None, None]
    if plan.window is None:
        return mask
    near = visible(at[k - q :, None], at[None, :], causal=False, window=plan.window)  # (q, k)
    if mask is None or mask.dtype == torch.bool:
        return near[None, None] if mask is None else mask & near
    return additive_mask(near, mask, query, plan.stock)


for _name in SEAMS.values():
    AttentionInterface.register(_name, attend)
    AttentionMaskInterface.register(_name, seam_mask)
