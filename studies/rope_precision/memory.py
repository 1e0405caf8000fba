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
        "hidden states": batch * tokens * config.hidden_size * (3 * size + SINGLE),
        # query, key and value before and after the rotation and a norm in float32; the output; key and value
        # repeated for all heads
        "query, key, value": batch * tokens * width * (size * (5 * heads + 4 * key_heads) + SINGLE * heads),
        # the scores before and after scaling, and the softmax in float32; the mask that all heads share
        "probabilities": batch * block * (2 * size + SINGLE) + batch * block // heads * (1 + size),
        # the probabilities, two of them in float64 at a time, and the sums by head
        "differences": block * (batch * size + 2 * DOUBLE) + DOUBLE * batch * tokens * heads,
        # positions, sums by key, cos and sin
        "sums and tables": batch * tokens * (4 * DOUBLE + 2 * width * size),
        "feed-forward": 3 * batch * tokens * widest(model) * size,
    }


def widest(model: nn.Module) -> int:
    """The most outputs of a linear layer of the base model."""
    linear = [m for m in base_models(model)[0].modules() if isinstance(m, nn.Linear)]
    return max((layer.out_features for layer in linear), default=0)


def peak(found: dict[str, int]) -> int:
    """The bytes at once: block and differences take turns, as attention and feed-forward layer do."""
    attention = found["query, key, value"] + max(found["probabilities"], found["differences"])
    return found["hidden states"] + found["sums and tables"] + max(attention, found["feed-forward"])


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
    """A line with the peak and each part."""
    found = parts(model, batch, tokens, dtype)
    each = ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in found.items())
    name, shifts = str(dtype).removeprefix("torch."), "1 shift" if batch == 2 else f"{batch - 1} shifts"
    return f"{name}: {peak(found) / 1e6:,.0f} MB beside the weights, {shifts} at once ({each})"
