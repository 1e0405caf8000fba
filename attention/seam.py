"""The attention seam: `attend` is the function that every attention module of a model calls.

Transformers (from version 5) looks attention up in two public registries, `AttentionInterface` and
`AttentionMaskInterface`. The seam registers one function in each, under the name `cadenza`; without the
second, transformers would silently drop the padding mask. Each call of `attend` does the following.

1. It reads the module's plan, whose fields techniques claim (`cadenza.attention.plan`).
2. It rotates query and key, if an exact rotation is claimed.
3. If the base model passes documents, the claimed kernel computes by document (`by_document`).
4. Else the stock kernel runs, on the stock mask plus a claimed bias or window.

The obvious way, a new `forward` for each attention class, breaks when transformers changes, and serves one
technique at a time. The cost here: a model must use the registries, with `sdpa` or `eager`.
"""

import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from cadenza.attention.base_model import ReadsDocuments
from cadenza.attention.call import AttentionCall, additive_mask, is_causal, visible
from cadenza.attention.documents import Documents
from cadenza.attention.kernels.sdpa import stock_kernel
from cadenza.attention.kernels.table import run
from cadenza.attention.plan import AttentionPlan, BatchPlan, plan_of
from cadenza.attention.rope import Rotation
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.retype import Undo, mix, stock_class, unmix
from cadenza.surgery.runtime import uncompiled

SEAM = "cadenza"


def attention_modules(model: nn.Module) -> Iterator[Any]:
    """The attention modules of `model` that call the attention interface."""
    return (module for module in model.modules() if is_attention(module))


def is_attention(module: nn.Module) -> bool:
    """Whether `module` calls the attention interface, as transformers' own attention classes do."""
    if not (hasattr(module, "is_causal") and hasattr(module, "config")):
        return False
    return hasattr(sys.modules.get(stock_class(module).__module__), "ALL_ATTENTION_FUNCTIONS")


def base_models(model: nn.Module) -> list[Any]:
    """The models without a head in `model` that use the attention interface; no encoder-decoders."""
    found = (m for m in model.modules() if isinstance(m, PreTrainedModel) and m.base_model is m)
    return [m for m in found if not m.config.is_encoder_decoder and any(attention_modules(m))]


def is_cross_attention(module: nn.Module) -> bool:
    """Whether `module` attends to another sequence; no technique changes that."""
    named = "CrossAttention" in stock_class(module).__name__
    return named or getattr(module, "is_cross_attention", False)


def open_seam(model: nn.Module) -> Iterator[Undo]:
    """Make every attention module of `model` call `attend`, and give it an empty plan; see `close_seam`.

    Raises:
        SurgeryError: the model computes attention with anything but `sdpa` or `eager`.
    """
    yield lambda: close_seam(model)
    for module in list(attention_modules(model)):
        if plan_of(module) is not None:
            continue
        stock = module.config._attn_implementation
        if stock == SEAM:  # a module with the same config was opened before
            opened = (m for m in attention_modules(model) if m.config is module.config)
            stock = next(plan.stock for m in opened if (plan := plan_of(m)) is not None)
        if stock not in ("sdpa", "eager"):
            raise SurgeryError(f"attn_implementation={stock!r}: load the model with 'sdpa' or 'eager'")
        module.attention_plan = AttentionPlan(stock)
        module.config._attn_implementation = SEAM
    for base in base_models(model):
        if plan_of(base) is None:
            base.batch_plan = BatchPlan(next(attention_modules(base)).attention_plan.stock)
            mix(base, ReadsDocuments)


def close_seam(model: nn.Module) -> None:
    """Restore the stock attention of `model`, unless a technique still has a claim."""
    modules = [m for m in (*attention_modules(model), *base_models(model)) if plan_of(m) is not None]
    if any(plan_of(m).claims() for m in modules):
        return
    for module in modules:
        unmix(module, ReadsDocuments)
        module.config._attn_implementation = plan_of(module).stock
        vars(module).pop("attention_plan", None)
        vars(module).pop("batch_plan", None)


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
    if plan is None:
        raise SurgeryError("the model shares its config with a changed model; give each its own, by deepcopy")
    rotation: Rotation | None = kwargs.pop("rope", None)
    if plan.rope is not None:
        if rotation is None:
            raise SurgeryError("an attention module got no positions; call the whole model")
        query, key = rotation.rotate(plan.rope, module.config, query, key, value.dtype)
    if (documents := kwargs.pop("documents", None)) is not None:
        return by_document(module, query, key, value, documents, kwargs)
    if plan.stock == "sdpa" and plan.bias is None and plan.window is None:
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, attention_mask, **kwargs)
    mask = _mask(plan, query, key, attention_mask, is_causal(module, kwargs))
    bias = None if plan.bias is None else plan.bias(query, key)
    return stock_kernel(module)(module, query, key, value, additive_mask(mask, bias, query), **kwargs)


@uncompiled  # kernels depend on the documents' lengths; graphs end here, so one serves all batches
def by_document(
    module: Any, query: Tensor, key: Tensor, value: Tensor, documents: Documents, options: dict[str, Any]
) -> tuple[Tensor, None]:
    """Attention within each document. Padding isn't computed; its output is zero.

    Shapes as in `attend`. With unpadded tokens the batch is 1.
    """
    if is_cross_attention(module):
        raise SurgeryError("cross-attention can't be computed by document")
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
    return additive_mask(near, mask, query)


AttentionInterface.register(SEAM, attend)
AttentionMaskInterface.register(SEAM, sdpa_mask)
