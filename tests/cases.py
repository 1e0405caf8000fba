"""The one table of techniques: what the contract matrix runs on. A new technique adds one row."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import effects
import torch
from families import CONFIGS, ENCODERS

from cadenza.algorithms import (
    GLU,
    ALiBi,
    AnchorAttention,
    BF16SafeRoPE,
    FlashAttention,
    LowPrecisionNorm,
    PostTrainingQuantization,
    QuantizationAwareTraining,
    SequencePacking,
    SparsePrediction,
    Unpadding,
    VocabPadding,
    apply_alibi,
    apply_anchor_attention,
    apply_bf16_safe_rope,
    apply_flash_attention,
    apply_glu,
    apply_low_precision_norm,
    apply_post_training_quantization,
    apply_quantization_aware_training,
    apply_sequence_packing,
    apply_sparse_prediction,
    apply_unpadding,
    apply_vocab_padding,
)
from cadenza.surgery import Report, Stage, Surgery

ALL = tuple(CONFIGS)


@dataclass(frozen=True)
class Case:
    """A technique: functional form, Algorithm, families that it claims, where and how it has its effect."""

    apply: Callable[..., Report]
    algorithm: Callable[..., Surgery]
    families: tuple[str, ...]
    context: Callable = nullcontext
    effect: Callable = effects.logits  # of a model, a family and a context; a tensor that must change


CASES: dict[str, Case] = {
    "alibi": Case(apply_alibi, ALiBi, ALL),
    "anchor_attention": Case(
        # Mistral here has a sliding window, which the anchor refuses; see tests/test_anchor_attention.py.
        apply_anchor_attention,
        AnchorAttention,
        ("llama", "qwen3", "gpt2"),
        effect=effects.anchored_logits,
    ),
    "bf16_safe_rope": Case(
        apply_bf16_safe_rope, BF16SafeRoPE, ("llama", "qwen3", "mistral"), effect=effects.logits_after_a_cast
    ),
    "flash_attention": Case(apply_flash_attention, FlashAttention, ALL, effect=effects.scores_computed),
    "glu": Case(apply_glu, GLU, ("bert", "roberta", "electra", "distilbert")),
    "low_precision_norm": Case(
        apply_low_precision_norm,
        LowPrecisionNorm,
        ALL,
        partial(torch.autocast, "cpu", dtype=torch.bfloat16),
    ),
    "sequence_packing": Case(apply_sequence_packing, SequencePacking, ALL, effect=effects.packed_logits),
    "sparse_prediction": Case(
        apply_sparse_prediction, SparsePrediction, ENCODERS, effect=effects.labelled_logits
    ),
    "unpadding": Case(apply_unpadding, Unpadding, ALL, effect=effects.rows_in_layers),
    "vocab_padding": Case(apply_vocab_padding, VocabPadding, ALL),
    # The last ones: they must not precede what changes the structure.
    "quantization_aware_training": Case(
        apply_quantization_aware_training,
        QuantizationAwareTraining,
        tuple(name for name in ALL if name != "gpt2"),  # of its layers only the head is an nn.Linear
    ),
    "post_training_quantization": Case(
        partial(apply_post_training_quantization, keep_original=True),
        PostTrainingQuantization,
        tuple(name for name in ALL if name != "gpt2"),  # its projections aren't nn.Linear
    ),
}

PAIRS = [(name, family) for name, case in CASES.items() for family in case.families]


# `alibi` leaves nothing to rotate and knows no anchor; `sequence_packing` reads document_ids in its own way;
# a layer is quantized in one way.
EXCLUDE = [
    {"bf16_safe_rope", "anchor_attention", "quantization_aware_training"},
    {"alibi", "sequence_packing", "post_training_quantization"},
]


def together(family: str) -> list[list[str]]:
    """The largest sets of techniques that claim `family` and go together."""
    every = [name for name, case in CASES.items() if family in case.families]
    chosen = [[name for name in every if name not in excluded] for excluded in EXCLUDE]
    return chosen if any(name in EXCLUDE[0] for name in every) else chosen[:1]


def claimed(family: str) -> list[str]:
    """The first of `together`."""
    return together(family)[0]


def honoured(order):
    """`order` with quantization after what it can't precede, structure; all else may come before or after."""
    stages = [CASES[name].algorithm.stage for name in order]
    last = max((i for i, stage in enumerate(stages) if stage == Stage.STRUCTURE), default=0)
    early = [name for name, stage in zip(order[:last], stages, strict=False) if stage == Stage.QUANTIZE]
    kept = [name for name in order[: last + 1] if name not in early]
    return [*kept, *early, *order[last + 1 :]]


TOGETHER = [(family, names) for family in CONFIGS for names in together(family)]
