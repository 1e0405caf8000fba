"""The techniques of a recipe on a model without weights, and what an estimate knows of each."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from cadenza.algorithms import REGISTRY
from cadenza.surgery import Surgery

# They change how attention is computed, and no parameter: the kind of attention stands for them.
BY_DOCUMENT = ("anchor_attention", "flash_attention", "sequence_packing", "unpadding")
OF_KERNELS = (*BY_DOCUMENT, "bf16_safe_rope", "sliding_window")
ROWS_ON_CUDA = (
    4096  # of a chunk of `chunked_loss` on a CUDA device, by default; a tensor on shapes is on a CPU
)
HOLD_NOTHING = (
    "batch_size_warmup",
    "gradient_clipping",
    "label_smoothing",
    "masking_schedule",
    "seq_length_warmup",
)
ANOTHER_MODEL = ("distillation",)  # holds a teacher


def names_of(recipe: Any) -> list[str]:
    """The names of the chosen techniques."""
    return [name for name, options in recipe.algorithms.items() if options is not False]


def by_document(recipe: Any) -> bool:
    """Whether attention is computed by document, without a mask of (length, length)."""
    return any(name in BY_DOCUMENT for name in names_of(recipe))


def uncounted(recipe: Any) -> list[str]:
    """What they hold isn't counted: Composer's, which change a run as it goes on, and a teacher."""
    known = REGISTRY.keys() - set(ANOTHER_MODEL) | set(HOLD_NOTHING)
    return [name for name in names_of(recipe) if name not in known]


def operated(model: nn.Module, algorithms: Sequence[Any], cuda: bool) -> nn.Module:
    """Apply those of `algorithms` that change parameters or what is kept for backward.

    Args:
        cuda: whether the model is for a CUDA device, for which `chunked_loss` has larger chunks.

    Raises:
        SurgeryError: one of them doesn't fit the model.
    """
    kernels = tuple(REGISTRY[name] for name in OF_KERNELS)
    for algorithm in algorithms:
        if isinstance(algorithm, Surgery) and not isinstance(algorithm, kernels):
            if hasattr(algorithm, "prove"):
                algorithm.prove = False  # a proof calls the model, which has no weights
            if cuda and getattr(algorithm, "rows", 0) is None:
                algorithm.rows = ROWS_ON_CUDA
            algorithm.operate(model)
    return model
