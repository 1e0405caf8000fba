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
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from cadenza.surgery.errors import Conflict, SurgeryError
from cadenza.surgery.retype import Undo, stock_class

SEAM = "cadenza"

Bias = Callable[[Tensor, Tensor], Tensor]
"""(query (..., heads, q, d), key (..., k, d)) -> what is added to the scores, (heads, q, k)."""


@dataclass(frozen=True)
class Plan:
    """What the techniques asked of an attention, one field each; None is not claimed.

    `stock` is the model's own implementation, `sdpa` or `eager`: it does the computing.
    """

    stock: str
    bias: Bias | None = None

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
    return lambda: close_seam(model)


def close_seam(model: nn.Module) -> None:
    """Give `model` its stock attention back, unless a technique still has a claim."""
    modules = [m for m in attention_modules(model) if "attention_plan" in m.__dict__]
    if any(m.attention_plan.claims() for m in modules):
        return
    for module in modules:
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
    module.attention_plan = replace(module.attention_plan, **values)

    def undo() -> None:
        module.attention_plan = replace(module.attention_plan, **dict.fromkeys(values))

    return undo


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
    plan: Plan = module.attention_plan
    if plan.stock == "sdpa" and plan.bias is None:
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, attention_mask, **kwargs)
    mask = _see(module, query, key, attention_mask, kwargs.get("is_causal"))
    bias = None if plan.bias is None else plan.bias(query, key)
    return _kernel(plan, module)(module, query, key, value, _added(mask, bias, query), **kwargs)


def _shares(module: nn.Module, other: nn.Module) -> bool:
    return module.config is other.config and "attention_plan" in module.__dict__


def _kernel(plan: Plan, module: nn.Module) -> Callable[..., tuple[Tensor, Tensor | None]]:
    if plan.stock == "sdpa":
        return ALL_ATTENTION_FUNCTIONS["sdpa"]
    return sys.modules[stock_class(module).__module__].eager_attention_forward


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


def _added(mask: Tensor | None, bias: Tensor | None, query: Tensor) -> Tensor | None:
    """Mask and bias as one term to add to the scores, (1 or batch, 1 or heads, q, k)."""
    if mask is None:
        return None if bias is None else bias[None]
    if mask.dtype != torch.bool:
        return mask if bias is None else mask + bias
    # The dtype's lowest number and not -inf: a row that sees nothing must not become NaN.
    lowest = torch.tensor(torch.finfo(query.dtype).min, dtype=query.dtype, device=query.device)
    return torch.where(mask, query.new_zeros(()) if bias is None else bias, lowest)


AttentionInterface.register(SEAM, attend)
AttentionMaskInterface.register(SEAM, sdpa_mask)
