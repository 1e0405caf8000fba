"""The one table of techniques: what the contract matrix runs on. A new technique adds one row."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from families import CONFIGS

from cadenza.algorithms import (
    GLU,
    ALiBi,
    LowPrecisionNorm,
    VocabPadding,
    apply_alibi,
    apply_glu,
    apply_low_precision_norm,
    apply_vocab_padding,
)
from cadenza.surgery import Report, Surgery

ALL = tuple(CONFIGS)


@dataclass(frozen=True)
class Case:
    """A technique: functional form, Algorithm, the families it claims, and where it has its effect."""

    apply: Callable[..., Report]
    algorithm: Callable[..., Surgery]
    families: tuple[str, ...]
    context: Callable = nullcontext


CASES: dict[str, Case] = {
    "alibi": Case(apply_alibi, ALiBi, ALL),
    "glu": Case(apply_glu, GLU, ("bert", "roberta", "electra", "distilbert")),
    "low_precision_norm": Case(
        apply_low_precision_norm,
        LowPrecisionNorm,
        ALL,
        partial(torch.autocast, "cpu", dtype=torch.bfloat16),
    ),
    "vocab_padding": Case(apply_vocab_padding, VocabPadding, ALL),
}

PAIRS = [(name, family) for name, case in CASES.items() for family in case.families]


def claimed(family: str) -> list[str]:
    """The techniques that claim `family`."""
    return [name for name, case in CASES.items() if family in case.families]
