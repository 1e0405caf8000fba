"""Composer's algorithms that a recipe can name, and for which models.

Left out are those

- that need torchvision's data sets: `augmix`, `randaugment`;
- that find nothing in these models: `stochastic_depth`, `low_precision_groupnorm`;
- that want rows of one length, and can't resume: `gyro_dropout`;
- that a technique or a key of a recipe replaces: `alibi`, `gated_linear_units`, `low_precision_layernorm`,
  `channels_last`.
"""

from typing import Any

import composer.algorithms
from composer.core import Algorithm

from cadenza.recipe.methods.sequence_lengths import SeqLengthWarmup

BOTH = {
    "ema": "EMA",
    "gradient_clipping": "GradientClipping",
    "layer_freezing": "LayerFreezing",
    "sam": "SAM",
    "swa": "SWA",
}
IMAGES = {
    "blurpool": "BlurPool",
    "colout": "ColOut",
    "cutmix": "CutMix",
    "cutout": "CutOut",
    "factorize": "Factorize",
    "ghost_batchnorm": "GhostBatchNorm",
    "label_smoothing": "LabelSmoothing",
    "mixup": "MixUp",
    "progressive_resizing": "ProgressiveResizing",
    "selective_backprop": "SelectiveBackprop",
    "squeeze_excite": "SqueezeExcite",
    "weight_standardization": "WeightStandardization",
}
COMPOSERS: dict[str, type[Algorithm]] = {
    **{name: getattr(composer.algorithms, cls) for name, cls in {**BOTH, **IMAGES}.items()},
    "seq_length_warmup": SeqLengthWarmup,
}
REPLACING = ("blurpool", "factorize", "ghost_batchnorm", "squeeze_excite")
TEXT = ("seq_length_warmup",)


def refuse_misfits(chosen: dict[str, dict[str, Any]], images: bool, max_seq_len: int | None) -> None:
    """Raise if one of the `chosen` algorithms isn't for this kind of model, or not for rows of this length.

    Raises:
        ValueError: the message begins with the key.
    """
    for name in chosen:
        if name in (TEXT if images else IMAGES):
            kinds = ("language models", "images") if images else ("images", "language models")
            raise ValueError(f"algorithms.{name} is for {kinds[0]}; this recipe is for {kinds[1]}")
    if "seq_length_warmup" in chosen:
        asked = chosen["seq_length_warmup"].get("max_seq_length")
        if asked != max_seq_len:
            key = "algorithms.seq_length_warmup.max_seq_length"
            raise ValueError(f"{key} is {asked}; it must be data.max_seq_len, {max_seq_len}")
