"""The techniques. `REGISTRY` maps the name in a recipe to the class."""

import composer.algorithms
from composer.core import Algorithm

from cadenza.algorithms.alibi import ALiBi, apply_alibi
from cadenza.algorithms.anchor_attention import AnchorAttention, apply_anchor_attention
from cadenza.algorithms.bf16_safe_rope import BF16SafeRoPE, apply_bf16_safe_rope, check_rope
from cadenza.algorithms.flash_attention import FlashAttention, apply_flash_attention
from cadenza.algorithms.glu import GLU, apply_glu
from cadenza.algorithms.low_precision_norm import LowPrecisionNorm, apply_low_precision_norm
from cadenza.algorithms.masking_schedule import MaskingSchedule
from cadenza.algorithms.post_training_quantization import (
    PostTrainingQuantization,
    apply_post_training_quantization,
)
from cadenza.algorithms.quantization_aware_training import (
    QuantizationAwareTraining,
    apply_quantization_aware_training,
    set_activation_bounds,
)
from cadenza.algorithms.sequence_packing import SequencePacking, apply_sequence_packing
from cadenza.algorithms.sparse_prediction import SparsePrediction, apply_sparse_prediction
from cadenza.algorithms.unpadding import Unpadding, apply_unpadding
from cadenza.algorithms.vocab_padding import VocabPadding, apply_vocab_padding
from cadenza.surgery.integers import check_converted, convert, load_converted

REGISTRY: dict[str, type[Algorithm]] = {
    "alibi": ALiBi,
    "anchor_attention": AnchorAttention,
    "bf16_safe_rope": BF16SafeRoPE,
    "flash_attention": FlashAttention,
    "glu": GLU,
    "low_precision_norm": LowPrecisionNorm,
    "masking_schedule": MaskingSchedule,
    "post_training_quantization": PostTrainingQuantization,
    "quantization_aware_training": QuantizationAwareTraining,
    "sequence_packing": SequencePacking,
    "sparse_prediction": SparsePrediction,
    "unpadding": Unpadding,
    "vocab_padding": VocabPadding,
}

# Where Composer looks for the algorithms of a checkpoint that a resume left out, by class name.
for _cls in REGISTRY.values():
    if getattr(composer.algorithms, _cls.__name__, _cls) is not _cls:
        raise ImportError(f"composer.algorithms has another {_cls.__name__}; a resume would create that one")
    setattr(composer.algorithms, _cls.__name__, _cls)

__all__ = [
    "GLU",
    "REGISTRY",
    "ALiBi",
    "AnchorAttention",
    "BF16SafeRoPE",
    "FlashAttention",
    "LowPrecisionNorm",
    "MaskingSchedule",
    "PostTrainingQuantization",
    "QuantizationAwareTraining",
    "SequencePacking",
    "SparsePrediction",
    "Unpadding",
    "VocabPadding",
    "apply_alibi",
    "apply_anchor_attention",
    "apply_bf16_safe_rope",
    "apply_flash_attention",
    "apply_glu",
    "apply_low_precision_norm",
    "apply_post_training_quantization",
    "apply_quantization_aware_training",
    "apply_sequence_packing",
    "apply_sparse_prediction",
    "apply_unpadding",
    "apply_vocab_padding",
    "check_converted",
    "check_rope",
    "convert",
    "load_converted",
    "set_activation_bounds",
]
