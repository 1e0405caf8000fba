"""The attention seam: one function that every attention of a model goes through, and its plan.

Transformers (from version 5) calls attention through two public registries, `AttentionInterface` and
`AttentionMaskInterface`. The seam registers one function in each, under the name `cadenza`; in the
first alone, the padding mask would be dropped without a word. A technique claims a field of the
`Plan` that stands on each attention module. With nothing claimed the stock kernel runs as it is.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from cadenza.surgery.anchor import Anchor
from cadenza.surgery.compiling import uncompiled
from cadenza.surgery.documents import Documents
from cadenza.surgery.errors import Conflict, SurgeryError
from cadenza.surgery.layout import ReadsDocuments
from cadenza.surgery.retype import Undo, mix, stock_class, unmix
from cadenza.surgery.rope import ExactRope, Rotation
from cadenza.surgery.varlen import Varlen, added, stock_kernel

SEAM = "cadenza"

Bias = Callable[[Tensor, Tensor], Tensor]
"""(query (..., heads, q, d), key (..., k, d)) -> what is added to the scores, (heads, q, k)."""


@dataclass(frozen=True)
class Plan:
    """What the techniques asked of an attention, one field each; None is not claimed.

    The plan stands on each attention module and, for what concerns a whole batch, on the base model.

    Args:
        stock: the model's own implementation, `sdpa` or `eager`: it computes where no kernel is claimed.
        bias: added to the scores.
        kernel: what computes attention, a name in `cadenza.surgery.kernels`; padding is left out.
        layout: `unpadded`; the layers see real tokens only. On the base model.
        packing: whether batches may bring `document_ids`, and what a document sees. On the base model.
        rows: where the labelled rows are selected, `last_layer` or `output`. On the base model.
        rope: what query and key are rotated by, here and not before. On the base model, too.
    """

    stock: str
    bias: Bias | None = None
    kernel: str | None = None
    layout: str | None = None
    packing: bool | Anchor | None = None
    rows: str | None = None
    rope: ExactRope | None = None

    def claims(self) -> list[str]:
        """The claimed fields, as `field=value`."""
        taken = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "stock"}
        return [f"{name}={value!r}" for name, value in taken.items() if value is not None]


def attention_modules(model: nn.Module) -> Iterator[Any]:
    """The attention modules of `model` that go through the attention interface."""
    return (module for module in model.modules() if is_attention(module))


def is_attention(module: nn.Module) -> bool:
    """Whether `module` calls the attention interface, as transformers' own attention classes do."""
    if not (hasattr(module, "is_causal") and hasattr(module, "config")):
        return False
    return hasattr(sys.modules.get(stock_class(module).__module__), "ALL_ATTENTION_FUNCTIONS")


def base_models(model: nn.Module) -> list[Any]:
    """The headless models in `model` whose attention goes through the interface; no encoder-decoders."""
    found = (m for m in model.modules() if isinstance(m, PreTrainedModel) and m.base_model is m)
    return [m for m in found if not m.config.is_encoder_decoder and any(attention_modules(m))]


def is_cross_attention(module: nn.Module) -> bool:
    """Whether `module` attends to another sequence; no technique changes that."""
    named = "CrossAttention" in stock_class(module).__name__
    return named or getattr(module, "is_cross_attention", False)


def open_seam(model: nn.Module) -> Undo:
    """Lead every attention of `model` through the seam, with an empty plan; see `close_seam`.

    Raises:
        SurgeryError: the model computes attention with anything but `sdpa` or `eager`.
    """
    for module in list(attention_modules(model)):
        if "attention_plan" in module.__dict__:
            continue
        stock = module.config._attn_implementation
        if stock == SEAM:  # another module that shares this config opened it
            stock = next(m.attention_plan.stock for m in attention_modules(model) if _shares(m, module))
        if stock not in ("sdpa", "eager"):
            raise SurgeryError(f"attn_implementation={stock!r}: load the model with 'sdpa' or 'eager'")
        module.attention_plan = Plan(stock)
        module.config._attn_implementation = SEAM
    for base in base_models(model):
        if "attention_plan" not in base.__dict__:
            base.attention_plan = Plan(next(attention_modules(base)).attention_plan.stock)
            mix(base, ReadsDocuments)
    return lambda: close_seam(model)


def close_seam(model: nn.Module) -> None:
    """Give `model` its stock attention back, unless a technique still has a claim."""
    modules = [*attention_modules(model), *base_models(model)]
    modules = [m for m in modules if "attention_plan" in m.__dict__]
    if any(m.attention_plan.claims() for m in modules):
        return
    for module in modules:
        unmix(module, ReadsDocuments)
        module.config._attn_implementation = module.attention_plan.stock
        del module.attention_plan


def claim(module: Any, **values: Any) -> Undo:
    """Claim fields of the plan of `module`, on an open seam.

    Raises:
        Conflict: another technique has the field.
    """
    for name in values:
        if (owner := getattr(module.attention_plan, name)) is not None:
            raise Conflict(f"attention {name} is taken by {owner!r}; undo that first")
    claimed = replace(module.attention_plan, **values)
    _refuse_together(claimed)
    module.attention_plan = claimed

    def undo() -> None:
        module.attention_plan = replace(module.attention_plan, **dict.fromkeys(values))

    return undo


def _refuse_together(plan: Plan) -> None:
    if plan.bias is None:
        return
    if plan.rope is not None:
        raise Conflict(
            "alibi takes the positions away that bf16_safe_rope rotates by; undo one of them first"
        )
    if isinstance(plan.packing, Anchor):
        raise Conflict("alibi knows no distance to the anchor of anchor_attention; undo one of them first")


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention by the plan of `module`.

    Args:
        query: (batch, heads, q, head_dim).
        key, value: (batch, key_value_heads, k, head_dim).
        attention_mask: (batch, 1, q, k), True where a query sees a key, or added to the scores; None:
            every key, or all up to the query if the module is causal.

    Returns:
        (batch, q, heads, head_dim), and the attention weights if the stock kernel gives them.
    """
    if "attention_plan" not in module.__dict__:
        raise SurgeryError(
            "this model shares its config with one that was operated on; give each its own, by deepcopy"
        )
    plan: Plan = module.attention_plan
    rotation: Rotation | None = kwargs.pop("rope", None)
    if plan.rope is not None:
        if rotation is None:
            raise SurgeryError("the positions got lost on the way to an attention; call the whole model")
        query, key = rotation.rotate(plan.rope, module.config, query, key, value.dtype)
    if (documents := kwargs.pop("documents", None)) is not None:
        return by_document(plan, module, query, key, value, documents, kwargs)
    if plan.stock == "sdpa" and plan.bias is None:
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, attention_mask, **kwargs)
    mask = _see(module, query, key, attention_mask, kwargs.get("is_causal"))
    bias = None if plan.bias is None else plan.bias(query, key)
    return stock_kernel(module)(module, query, key, value, added(mask, bias, query), **kwargs)


@uncompiled  # kernels choose by the documents' lengths: graphs end here, one serves all batches
def by_document(
    plan: Plan,
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    documents: Documents,
    options: dict[str, Any],
) -> tuple[Tensor, None]:
    """Attention of each document to itself alone; padding is left out, and comes out as zeros.

    Shapes as in `attend`; with unpadded tokens the batch is 1.
    """
    from cadenza.surgery import kernels  # not before: `python -m cadenza.surgery.kernels` runs it itself

    if is_cross_attention(module):
        raise SurgeryError("cross-attention can't be computed by document")
    batch, _, length, _ = query.shape
    call = Varlen.of(module, plan.bias, documents, options)
    tokens = [documents.gather(x.transpose(1, 2)) for x in (query, key, value)]
    output = kernels.run(plan.kernel, call, *tokens)
    return documents.scatter(output, batch, length), None


def _shares(module: nn.Module, other: nn.Module) -> bool:
    return module.config is other.config and "attention_plan" in module.__dict__


def _see(
    module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, is_causal: bool | None
) -> Tensor | None:
    """The mask, with the causal one written out where transformers leaves it to the kernel."""
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if mask is not None or not causal or query.shape[-2] == 1:
        return mask
    # Transformers skips a causal mask only where queries and keys start at the same position.
    shape = (1, 1, query.shape[-2], key.shape[-2])
    return torch.ones(shape, dtype=torch.bool, device=query.device).tril()


AttentionInterface.register(SEAM, attend)
AttentionMaskInterface.register(SEAM, sdpa_mask)
