"""The memory that D needs beside the weights, by part, and how many shifts fit in at once."""

from typing import Any

import torch
from torch import nn

from cadenza.attention.modules import base_models
from cadenza.studies.checks import StudyError
from cadenza.studies.rope_precision.row_blocks import rows_of

GB = 10**9
SINGLE, DOUBLE = 4, 8  # bytes of float32 and float64


def parts(model: Any, batch: int, tokens: int, dtype: torch.dtype) -> dict[str, int]:
    """The bytes of each part, for `batch` rows of `tokens`; the model may be on the meta device."""
    config, size = model.config.get_text_config(), dtype.itemsize
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    block = heads * rows_of(batch, heads, tokens) * tokens
    return {
        # the residual, its norm and their sum; the norm is computed in float32
        "hidden states": batch * tokens * config.hidden_size * (3 * size + 2 * SINGLE),
        # query, key and value before and after the rotation; the output; key and value repeated for all heads
        "query, key, value": batch * tokens * width * size * (5 * heads + 4 * key_heads),
        # scores before and after scaling and the mask, and the softmax in float32
        "probabilities": batch * block * (2 * size + 2 * SINGLE),
        # of one row of the batch at a time: two probabilities and a difference, and the sums by head
        "differences": 3 * DOUBLE * block + DOUBLE * batch * tokens * (heads + 3),
        "feed-forward": 4 * batch * tokens * widest(model) * size,
    }


def widest(model: nn.Module) -> int:
    """The most outputs of a linear layer of the base model."""
    linear = [m for m in base_models(model)[0].modules() if isinstance(m, nn.Linear)]
    return max((layer.out_features for layer in linear), default=0)


def peak(found: dict[str, int]) -> int:
    """The bytes at once: attention and the feed-forward layer take turns."""
    attention = sum(found[name] for name in ("query, key, value", "probabilities", "differences"))
    return found["hidden states"] + max(attention, found["feed-forward"])


def at_once(model: Any, shifts: int, tokens: int, dtype: torch.dtype, limit: float) -> int:
    """How many of `shifts` fit in `limit` bytes, beside the positions that they are compared with.

    Raises:
        StudyError: not even one.
    """
    needed = [peak(parts(model, 1 + n, tokens, dtype)) for n in range(1, shifts + 1)]
    if fitting := [n for n, size in enumerate(needed, 1) if size <= limit]:
        return max(fitting)
    raise StudyError(
        f"--memory is {limit / GB:g} GB; one shift of {tokens} tokens needs {needed[0] / GB:.2g} GB beside "
        "the weights; give more, or choose fewer --tokens"
    )


def described(model: Any, batch: int, tokens: int, dtype: torch.dtype) -> str:
    """A line with each part and the peak."""
    found = parts(model, batch, tokens, dtype)
    each = ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in found.items())
    name = str(dtype).removeprefix("torch.")
    return f"{name}: {peak(found) / 1e6:,.0f} MB beside the weights, {batch - 1} shifts at once ({each})"
