"""Rotary positions that no cast can round."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cadenza.surgery.attention import base_models, claim, is_attention
from cadenza.surgery.engine import Site
from cadenza.surgery.errors import Conflict, SurgeryError
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Undo, chain, is_stock, mix, stock_class
from cadenza.surgery.rope import BY_LENGTH, ExactRope, frequencies, rope_type
from cadenza.surgery.seam import AttentionSurgery

FAMILIES = ("Llama", "Mistral", "Qwen2", "Qwen3")


@dataclass(repr=False, eq=False)
class BF16SafeRoPE(AttentionSurgery):
    """Rotates query and key right before attention: exact frequencies, float64 angles, float32 products.

    The frequencies are computed from the config and never stand in a buffer, where `.to(bfloat16)` and
    FSDP's buffer cast round them: at position 131,071 that turns q.k into noise (0.99 relative error; here
    2.4e-3, the rounding of bfloat16 inputs). Every rope type of transformers works. Rotating in float32
    alone gains 1.65x over stock bfloat16; don't expect more of it.

    Use it to train in bfloat16 beyond 4,096 positions. It costs a rotation of cached keys at each generated
    token.

    Args:
        per_document: count positions from each document's start: the same scores, bit for bit, wherever a
            document stands in a packed row.

    Works on Llama, Mistral, Qwen2 and Qwen3.
    """

    per_document: bool = False
    keeps_outputs = True

    def edit(self, site: Site) -> Undo | None:
        module: Any = site.module
        if is_stock(module, *(f"{family}RotaryEmbedding" for family in FAMILIES)):
            return self._take(site, module)
        if is_attention(module) and is_stock(module, *(f"{family}Attention" for family in FAMILIES)):
            return claim(module, rope=self._rope(module))
        return None

    def _take(self, site: Site, rotary: Any) -> Undo:
        """The base model hands the positions on; its rotary embedding turns by nothing."""
        if site.host is None:
            raise SurgeryError(f"{site.path}: pass the whole model, which hands the positions on")
        if type(rotary) is not stock_class(rotary):
            raise Conflict(
                f"{site.path}: {type(rotary).__name__} has taken the rotation away; undo that first"
            )
        base = next(base for base in base_models(site.host) if rotary in base.modules())
        rope = ExactRope(stock_class(rotary), self.per_document)
        return chain(partial(claim, base, rope=rope), partial(mix, rotary, NoRotation))

    def _rope(self, attention: Any) -> ExactRope:
        module = stock_class(attention)
        name = module.__name__.replace("Attention", "RotaryEmbedding")
        return ExactRope(vars(__import__(module.__module__, fromlist=[name]))[name], self.per_document)


def apply_bf16_safe_rope(
    model: nn.Module, per_document: bool = False, *, optimizers: Optimizer | list[Optimizer] | None = None
) -> Report:
    """Let no cast round the rotary positions of `model`, in place; see `BF16SafeRoPE`.

    Raises:
        NoEffect: no Llama, Mistral, Qwen2 or Qwen3 in the model.
        Conflict: ALiBi has taken the rotation away.
    """
    return BF16SafeRoPE(per_document).operate(model, optimizers)


class NoRotation:
    """A rotary embedding that leaves the turning to the attention; see `cadenza.surgery.rope`."""

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        return x.new_ones(1, 1, 1), x.new_zeros(1, 1, 1)


def check_rope(model: nn.Module) -> int:
    """Raise if a rotary embedding in `model` turns by other frequencies than its config says.

    Returns:
        How many were checked, those behind `bf16_safe_rope` not counted: they have none to go wrong.

    Raises:
        SurgeryError: the module, how far it is off, and what would be right.
    """
    found = [
        (path, m) for path, m in model.named_modules() if hasattr(m, "inv_freq") and hasattr(m, "config")
    ]
    stored = [(path, m) for path, m in found if not isinstance(m, NoRotation)]
    for path, module in stored:
        _check(path, module)
    return len(stored)


def _check(path: str, rotary: Any) -> None:
    by_length = rope_type(rotary.config) in BY_LENGTH  # then inv_freq follows the longest sequence so far
    held = rotary.original_inv_freq if by_length else rotary.inv_freq
    right = torch.tensor(frequencies(stock_class(rotary), rotary.config)[0], dtype=torch.float64)
    off = (held.detach().double().cpu() / right - 1).abs().max().item()
    if off > 1e-5:  # float32 is off by 6e-8 at most, bfloat16 by 4e-3
        raise SurgeryError(
            f"{path}: inv_freq ({held.dtype}) is off by {off:.1e} from what its config says: a cast to "
            "bfloat16 rounded it, or rope_theta was changed later. Apply bf16_safe_rope, or build the model "
            "anew"
        )
