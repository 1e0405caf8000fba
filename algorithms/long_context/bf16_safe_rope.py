"""Rotary positions from exact frequencies, which no cast of the model can round."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from cadenza.attention.modules import base_models, is_attention
from cadenza.attention.plan import claim, plan_of
from cadenza.attention.proof.claims import options_are_known
from cadenza.attention.rotary.embedding import ExactTables, RotatedExactly, by_layer_type
from cadenza.attention.rotary.proof import prove as prove_rotation
from cadenza.attention.rotary.tables import ExactRope, by_length, is_rotary, layer_types, layout, new_rotary
from cadenza.attention.rotary.unrotated import WithoutRotation
from cadenza.attention.technique import AttentionSurgery
from cadenza.options import option
from cadenza.surgery.engine import Site
from cadenza.surgery.errors import Conflict, SurgeryError
from cadenza.surgery.optimizers import Optimizers
from cadenza.surgery.parameters import set_attributes
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Undo, mix, stock_class

__all__ = ["BF16SafeRoPE", "apply_bf16_safe_rope", "check_rope"]


@dataclass(repr=False, eq=False)
class BF16SafeRoPE(AttentionSurgery):
    """Rotates query and key in float32, by exact frequencies that no cast of the model rounds.

    The frequencies are computed from the config, not stored in a buffer that `.to(bfloat16)` and FSDP's
    buffer cast would round. At position 131,071 rounded frequencies turn q.k into noise: the relative error
    is 0.99, here 2.4e-3, which is the rounding of bfloat16 inputs. Against stock bfloat16 with unrounded
    frequencies the gain is 1.65x, from rotating in float32. Every rope type of transformers works.

    Use it to train in bfloat16 beyond 4,096 positions. A cache holds rotated keys, as in the stock model.
    When the technique is applied, the model computes two short sequences with it and with stock code; a
    difference above rounding is an error.

    Works on any encoder or decoder on the attention interface whose attention takes cos and sin of one
    position a token, as Llama's does.
    """

    per_document: bool = option(
        False,
        "Whether positions count from the start of each document. Scores are then the same, bit for bit, "
        "wherever a document stands in a packed row.",
    )
    keeps_outputs = True
    claims = (options_are_known,)

    def survey(self, model: nn.Module) -> bool:
        """Whether anything in `model` rotates."""
        return any(is_rotary(module) for module in model.modules())

    def edit(self, site: Site) -> Iterator[Undo]:
        module: Any = site.module
        if is_rotary(module):
            yield from self._edit_rotary(site, module)
        elif site.survey and is_attention(module) and _takes_tables(module):
            yield claim(module, positions=ExactRope(self.per_document))
            yield mix(module, RotatedExactly)

    def _edit_rotary(self, site: Site, rotary: Any) -> Iterator[Undo]:
        if site.host is None:
            raise SurgeryError(f"{site.path}: pass the whole model; its attention modules rotate")
        if type(rotary) is not stock_class(rotary):
            name = type(rotary).__name__
            raise Conflict(f"{site.path}: {name} has already removed the rotation; undo that first")
        base = next((base for base in base_models(site.host) if rotary in base.modules()), None)
        if base is None:
            raise SurgeryError(f"{site.path}: it belongs to no encoder or decoder on the attention interface")
        exact = {"exact_layout": layout(rotary), "exact_frequencies": by_layer_type(rotary)}
        if plan_of(base).positions is None:  # else the base model has several rotary embeddings
            yield claim(base, positions=ExactRope(self.per_document))
        yield set_attributes(rotary, **exact)
        yield mix(rotary, ExactTables)

    def finish(self, report: Report, survey: Any) -> Iterator[Undo]:
        for base in base_models(report.model) if self.prove and report.changes else ():
            if any(isinstance(module, ExactTables) for module in base.modules()):
                prove_rotation(base)
        return super().finish(report, survey)


def _takes_tables(attention: Any) -> bool:
    return "position_embeddings" in inspect.signature(stock_class(attention).forward).parameters


def apply_bf16_safe_rope(
    model: nn.Module, per_document: bool = False, *, optimizers: Optimizers = None, prove: bool = True
) -> Report:
    """Give `model` rotary positions that no cast rounds, in place; see `BF16SafeRoPE`.

    Raises:
        NoEffect: the model has no rotary embedding.
        SurgeryError: it uses rotary positions in another way than with one cos and sin a token.
        Conflict: `alibi` has been applied.
    """
    return BF16SafeRoPE(per_document, prove=prove).operate(model, optimizers)


def check_rope(model: nn.Module) -> int:
    """Check that the frequencies stored in the rotary embeddings of `model` are those of its config.

    Returns:
        The number of rotary embeddings checked. Those behind `bf16_safe_rope`, `alibi` and `drop_rope` don't
        count: attention ignores their stored frequencies.

    Raises:
        SurgeryError: a frequency is wrong.
    """
    count = 0
    for path, module in model.named_modules():
        if is_rotary(module) and not isinstance(module, ExactTables | WithoutRotation):
            for layer_type in layer_types(module):
                _check(path, module, layer_type)
            count += 1
    return count


def _check(path: str, rotary: Any, layer_type: str | None) -> None:
    # Where frequencies depend on the longest sequence so far, the original ones are kept beside.
    original = "original_" if by_length(rotary, layer_type) else ""
    name = f"{layer_type}_{original}inv_freq" if layer_type else f"{original}inv_freq"
    stored, exact = getattr(rotary, name), getattr(new_rotary(rotary), name).double()
    off = (stored.detach().double().cpu() - exact).abs() / exact.where(exact > 0, 1)  # some rotate nothing
    if (error := off.max().item()) > 1e-5:  # float32 is off by 6e-8 at most, bfloat16 by 4e-3
        raise SurgeryError(
            f"{path}: {name} ({stored.dtype}) is off by {error:.1e} from its config: a cast to bfloat16 "
            "rounded it, or rope_theta was changed later. Apply bf16_safe_rope, or build the model anew"
        )
