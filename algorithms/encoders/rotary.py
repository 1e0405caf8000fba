"""Rotary positions in place of learned ones, in an encoder."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from cadenza.attention.modules import ENCODER_ATTENTIONS, ENCODERS, base_models
from cadenza.attention.plan import claim
from cadenza.attention.rotary.rotation import Rotation
from cadenza.attention.rotary.unlearned import take_positions
from cadenza.attention.technique import AttentionSurgery
from cadenza.options import Range, option
from cadenza.surgery.engine import Site
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.optimizers import Optimizers
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Undo, is_stock

__all__ = ["Rotary", "apply_rotary"]


@dataclass(repr=False, eq=False)
class Rotary(AttentionSurgery):
    """Rotates query and key by their positions, in place of learned position embeddings.

    Su et al., arXiv 2104.09864; with two bases as in ModernBERT (arXiv 2412.13663, section 2.1.1). Angles are
    exact, and the rotation is in float32 also where the model is in bfloat16. There is no buffer and no
    state-dict key, and a sequence may be longer than `max_position_embeddings`.

    Use it when pretraining from scratch for long sequences. A pretrained model has to be trained again,
    because its positions are gone. It costs two products and a sum for each number in query and key. It
    can't go with `alibi`.

    Works on BERT, RoBERTa, XLM-RoBERTa, ELECTRA, ALBERT and DistilBERT, as encoders.
    """

    theta: float = option(
        10_000.0, "The base of the frequencies. ModernBERT: 160,000 in the end.", Range("[1, 1e12]")
    )
    window_theta: float | None = option(
        None,
        "The base in layers with a sliding window; null: `theta`. ModernBERT: 10,000.",
        Range("[1, 1e12]"),
    )

    def edit(self, site: Site) -> Iterator[Undo]:
        module: Any = site.module
        if is_stock(module, *ENCODER_ATTENTIONS):
            _refuse_misfit(site.path, module)
            yield claim(module, positions=self._rotation)
        elif is_stock(module, *BASES) and base_models(module) == [module]:
            yield claim(module, positions=self._rotation)
        elif site.host is not None and _of_family(site.host):
            yield from take_positions(site.path, module)

    @property
    def _rotation(self) -> Rotation:
        return Rotation(float(self.theta), self.window_theta and float(self.window_theta))


BASES = tuple(f"{name}Model" for name in ENCODERS)


def apply_rotary(
    model: nn.Module,
    theta: float = 10_000.0,
    window_theta: float | None = None,
    *,
    optimizers: Optimizers = None,
) -> Report:
    """Give `model` rotary positions in place of learned ones, in place; see `Rotary`.

    Raises:
        NoEffect: the model contains no encoder of these families.
        SurgeryError: it is a decoder, or its heads have an odd number of columns.
    """
    return Rotary(theta, window_theta).operate(model, optimizers)


def _of_family(host: nn.Module) -> bool:
    return any(is_stock(base, *BASES) for base in base_models(host))


def _refuse_misfit(path: str, attention: Any) -> None:
    if attention.is_causal or getattr(attention, "is_decoder", False):
        raise SurgeryError(f"{path}: rotary is for encoders; choose a decoder with rotary positions instead")
    if attention.attention_head_size % 2:
        size = attention.attention_head_size
        raise SurgeryError(f"{path}: rotary turns pairs of columns, but a head has {size}; make that even")
