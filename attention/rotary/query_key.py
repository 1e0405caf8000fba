"""What happens to query and key before their scores: first a norm, then a rotation, if they are claimed."""

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from cadenza.attention.rotary.rotation import ARGUMENT

QUERY, KEY = "query_norm", "key_norm"  # the weights of an attention module


@dataclass(frozen=True)
class HeadNorm:
    """The claim of an RMSNorm over the columns of each head, by the weights of the attention module."""

    eps: float

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        """`x` (batch, heads, tokens, head_dim), in its own dtype."""
        return F.rms_norm(x, weight.shape, weight.to(x.dtype), self.eps)

    def __repr__(self) -> str:
        return "qk_norm"


def prepared(
    module: Any, plan: Any, query: Tensor, key: Tensor, kwargs: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """`query` and `key` (batch, heads, tokens, head_dim) by `plan`; takes their positions from `kwargs`."""
    if plan.norm is not None:
        query, key = plan.norm(query, getattr(module, QUERY)), plan.norm(key, getattr(module, KEY))
    if plan.rotation is not None:
        windowed = plan.window is not None
        query, key = plan.rotation.rotate(query, key, kwargs.pop(ARGUMENT, None), windowed)
    return query, key
