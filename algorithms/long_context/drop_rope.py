"""DropRope: the rotary positions of a pretrained decoder taken away."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from cadenza.attention.modules import is_attention, is_cross_attention
from cadenza.attention.plan import claim
from cadenza.attention.proof.claims import mixes_by_attention
from cadenza.attention.proof.positions import forgets_positions, looks_nothing_up
from cadenza.attention.rotary.tables import is_rotary
from cadenza.attention.rotary.unrotated import NoRotation, WithoutRotation
from cadenza.attention.technique import AttentionSurgery
from cadenza.options import Range, option
from cadenza.surgery.engine import Site
from cadenza.surgery.errors import Conflict, SurgeryError
from cadenza.surgery.optimizers import Optimizers
from cadenza.surgery.parameters import set_attributes
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Undo, mix, stock_class

__all__ = ["DropRope", "apply_drop_rope"]


@dataclass(repr=False, eq=False)
class DropRope(AttentionSurgery):
    """Takes the rotary positions of a pretrained decoder away: query and key are no longer rotated.

    DroPE (Gelberg et al., arXiv 2512.12167). What remains of the order of tokens is causality, and a sliding
    window if a layer has one. A factor that a rope type puts on cos and sin (YaRN, longrope) goes, too; the
    scale of the scores stays the model's own. No parameter is added, and a cache holds unrotated keys.

    Use it to lengthen the context of a model after pretraining: apply it, then train the model for a while at
    the length that it has (`yamls/drop_rope.yaml`); longer sequences need no further training. Without that
    training the model is useless, because it was trained with positions. A step costs what it did.

    That the model then reads longer sequences is the authors' claim alone: 52.5 against YaRN's 12.2 on a
    needle in a haystack at eight times the length, after 0.5 to 2 % of the pretraining tokens. Their code
    also has variants with a norm on query and key, which this technique doesn't have.

    Works on any decoder with rotary positions on the attention interface, whose tokens meet in attention
    alone (docs/families.md). Encoders are refused: without positions and causality they see a bag of words.
    It combines with `anchor_attention` without `reset_positions`, but not with `alibi` or `bf16_safe_rope`.
    """

    temperature: float = option(
        1.0,
        "The scores are divided by it, in training and inference. The authors' code has it as "
        "`softmax_scale`, which none of its recipes sets.",
        Range("(0, 1000]"),
    )
    claims = (mixes_by_attention, looks_nothing_up, forgets_positions)

    def survey(self, model: nn.Module) -> bool:
        """Whether anything in `model` rotates."""
        return any(is_rotary(module) for module in model.modules())

    def edit(self, site: Site) -> Iterator[Undo]:
        module: Any = site.module
        if is_rotary(module):
            self._check_rotary(site, module)
            yield mix(module, WithoutRotation)
        elif site.survey and is_attention(module) and not is_cross_attention(module):
            _check_attention(site.path, module)
            yield claim(module, positions=NoRotation())
            if self.temperature != 1.0:
                yield self._divide_scores(site.path, module)

    def _check_rotary(self, site: Site, rotary: Any) -> None:
        if site.host is None:
            raise SurgeryError(f"{site.path}: pass the whole model; its attention modules rotate")
        if type(rotary) is not stock_class(rotary):
            name = type(rotary).__name__
            raise Conflict(f"{site.path}: {name} has another technique's rotation; undo that first")

    def _divide_scores(self, path: str, attention: Any) -> Undo:
        scaling = getattr(attention, "scaling", None)
        if not isinstance(scaling, float):
            name = type(attention).__name__
            raise SurgeryError(f"{path}: {name} has no number `scaling`; leave drop_rope's temperature out")
        return set_attributes(attention, scaling=scaling / self.temperature)


def _check_attention(path: str, attention: Any) -> None:
    if not attention.is_causal:
        name = type(attention).__name__
        raise SurgeryError(
            f"{path}: {name} is not causal; without positions it would see a bag of words: drop_rope is for "
            "decoders"
        )


def apply_drop_rope(
    model: nn.Module, temperature: float = 1.0, *, optimizers: Optimizers = None, prove: bool = True
) -> Report:
    """Take the rotary positions of `model` away, in place; see `DropRope`.

    Raises:
        NoEffect: the model has no attention on transformers' attention interface, or no rotary embedding.
        SurgeryError: attention isn't causal; or a model of no tested family can't prove that no position
            remains.
        Conflict: `alibi`, `bf16_safe_rope`, or `anchor_attention` with `reset_positions` has been applied.
    """
    return DropRope(temperature, prove=prove).operate(model, optimizers)
