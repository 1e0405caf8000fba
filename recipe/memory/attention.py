"""Attention as a step on shapes computes it.

Stock code reads a mask to see whether it masks anything, and makes one of (batch, 1, length, length) if it
can't. Shapes don't say, so rows without padding and kernels that compute by document are named here: what
they keep grows with the tokens alone.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


@contextmanager
def without_masks(names: Iterable[str]) -> Iterator[None]:
    """Compute the attention implementations of these names by SDPA without a mask."""
    names = set(names)
    for name in names:
        ALL_ATTENTION_FUNCTIONS[name] = _sdpa
        ALL_MASK_ATTENTION_FUNCTIONS[name] = _no_mask
    try:
        yield
    finally:
        for name in names:
            del ALL_ATTENTION_FUNCTIONS[name], ALL_MASK_ATTENTION_FUNCTIONS[name]


def implementations(model: Any) -> set[str]:
    """The names of the attention implementations that the modules of `model` call."""
    configs: list[Any] = [getattr(module, "config", None) for module in model.modules()]
    return {config._attn_implementation for config in configs if hasattr(config, "_attn_implementation")}


def _sdpa(module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> Any:
    return sdpa_attention_forward(module, query, key, value, None, **options)


def _no_mask(*args: Any, **kwargs: Any) -> None:
    return None
