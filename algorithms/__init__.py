"""The techniques. `REGISTRY` maps the name in a recipe to the class."""

from composer.core import Algorithm

from cadenza.algorithms.alibi import ALiBi, apply_alibi
from cadenza.algorithms.glu import GLU, apply_glu
from cadenza.algorithms.low_precision_norm import LowPrecisionNorm, apply_low_precision_norm
from cadenza.algorithms.masking_schedule import MaskingSchedule
from cadenza.algorithms.vocab_padding import VocabPadding, apply_vocab_padding

REGISTRY: dict[str, type[Algorithm]] = {
    "alibi": ALiBi,
    "glu": GLU,
    "low_precision_norm": LowPrecisionNorm,
    "masking_schedule": MaskingSchedule,
    "vocab_padding": VocabPadding,
}

__all__ = [
    "GLU",
    "REGISTRY",
    "ALiBi",
    "LowPrecisionNorm",
    "MaskingSchedule",
    "VocabPadding",
    "apply_alibi",
    "apply_glu",
    "apply_low_precision_norm",
    "apply_vocab_padding",
]
