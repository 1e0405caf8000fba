"""Whether the frequencies of rotary embeddings are those of the config."""

from torch import nn


def check_rope(model: nn.Module) -> int:
    """As `cadenza.algorithms.check_rope`: the number of rotary embeddings, or an error that names one."""
    # Late: what this folder needs at the top is torch, so that attention may import it.
    from cadenza.algorithms.bf16_safe_rope import check_rope as check

    return check(model)
