"""Rotary positions from exact frequencies, which no cast of the model can round."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cadenza.attention.plan import claim
from cadenza.attention.rope import BY_LENGTH, ExactRope, frequencies, rope_type
from cadenza.attention.seam import base_models, is_attention
from cadenza.attention.technique import AttentionSurgery
from cadenza.surgery.engine import Site
from cadenza.surgery.errors import Conflict, SurgeryError
from cadenza.surgery.optimizers import Optimizers
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Mixin, Stage, Undo, is_stock, mix, stock_class

__all__ = ["BF16SafeRoPE", "apply_bf16_safe_rope", "check_rope"]

FAMILIES = ("Llama", "Mistral", "Qwen2", "Qwen3")


@dataclass(repr=False, eq=False)
class BF16SafeRoPE(AttentionSurgery):
    """Rotates query and key right before attention, from exact frequencies that no cast of the model rounds.

    The frequencies are computed from the config, not stored in a buffer that `.to(bfloat16)` and FSDP's
    buffer cast would round. At position 131,071 rounded frequencies turn q.k into noise: the relative error
    is 0.99, here 2.4e-3, which is the rounding of bfloat16 inputs. Against stock bfloat16 with unrounded
    frequencies the gain is 1.65x, from rotating in float32. Every rope type of transformers works.

    Use it to train in bfloat16 beyond 4,096 positions. Generation rotates all cached keys at each new token.

    Args:
        per_document: whether positions count from the start of each document. Scores are then the same, bit
            for bit, wherever a document stands in a packed row.

    Works on Llama, Mistral, Qwen2 and Qwen3.
    """

    per_document: bool = False
    keeps_outputs = True

    def edit(self, site: Site) -> Iterator[Undo]:
        module: Any = site.module
        if is_stock(module, *(f"{family}RotaryEmbedding" for family in FAMILIES)):
            yield from self._edit_rotary(site, module)
        elif is_attention(module) and is_stock(module, *(f"{family}Attention" for family in FAMILIES)):
            yield claim(module, positions=self._rope(module))

    def _edit_rotary(self, site: Site, rotary: Any) -> Iterator[Undo]:
        """Let the base model pass positions to attention, and the rotary embedding rotate by zero."""
        if site.host is None:
            raise SurgeryError(f"{site.path}: pass the whole model; the base model passes positions on")
        if type(rotary) is not stock_class(rotary):
            name = type(rotary).__name__
            raise Conflict(f"{site.path}: {name} has already removed the rotation; undo that first")
        base = next(base for base in base_models(site.host) if rotary in base.modules())
        yield claim(base, positions=ExactRope(stock_class(rotary), self.per_document))
        yield mix(rotary, NoRotation)

    def _rope(self, attention: Any) -> ExactRope:
        module = stock_class(attention)
        name = module.__name__.replace("Attention", "RotaryEmbedding")
        return ExactRope(vars(__import__(module.__module__, fromlist=[name]))[name], self.per_document)


def apply_bf16_safe_rope(
    model: nn.Module, per_document: bool = False, *, optimizers: Optimizers = None
) -> Report:
    """Give `model` rotary positions that no cast rounds, in place; see `BF16SafeRoPE`.

    Raises:
        NoEffect: the model contains no Llama, Mistral, Qwen2 or Qwen3.
        Conflict: `alibi` has been applied.
    """
    return BF16SafeRoPE(per_document).operate(model, optimizers)


class NoRotation(Mixin, of="bf16_safe_rope", stage=Stage.ATTENTION):
    """A rotary embedding that leaves the rotation to attention; see `cadenza.attention.rope`."""

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        return x.new_ones(1, 1, 1), x.new_zeros(1, 1, 1)


def check_rope(model: nn.Module) -> int:
    """Check that the frequencies stored in the rotary embeddings of `model` are those of its config.

    Returns:
        The number of rotary embeddings checked. Those behind `bf16_safe_rope` don't count: attention ignores
        their stored frequencies.

    Raises:
        SurgeryError: a frequency is wrong.
    """
    count = 0
    for path, module in model.named_modules():
        if hasattr(module, "inv_freq") and hasattr(module, "config") and not isinstance(module, NoRotation):
            _check(path, module)
            count += 1
    return count


def _check(path: str, rotary: Any) -> None:
    by_length = rope_type(rotary.config) in BY_LENGTH  # then inv_freq depends on the longest sequence so far
    stored = rotary.original_inv_freq if by_length else rotary.inv_freq
    exact = torch.tensor(frequencies(stock_class(rotary), rotary.config)[0], dtype=torch.float64)
    error = (stored.detach().double().cpu() / exact - 1).abs().max().item()
    if error > 1e-5:  # float32 is off by 6e-8 at most, bfloat16 by 4e-3
        raise SurgeryError(
            f"{path}: inv_freq ({stored.dtype}) is off by {error:.1e} from its config: a cast to bfloat16 "
            "rounded it, or rope_theta was changed later. Apply bf16_safe_rope, or build the model anew"
        )
