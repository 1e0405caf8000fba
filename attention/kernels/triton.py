"""Attention by document in Triton, with ALiBi: one launch for all documents, in tiles that follow them.

`triton_operators` has the operators, and `triton_programs` what they launch.
"""

from torch import Tensor

from cadenza.attention.call import AttentionCall
from cadenza.attention.kernels import flash
from cadenza.attention.kernels.triton_operators import LOG2_E, attention
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.runtime import transformed


def triton(call: AttentionCall, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """FlashAttention 2 (Dao, arXiv 2307.08691) by document. Shapes as in `sdpa.stock`.

    Raises:
        SurgeryError: `torch.func` or forward-mode differentiation is at work; a document is beyond 32 bits.
    """
    if transformed():
        raise SurgeryError("flash_attention kernel 'triton' knows no torch.func or forward-mode; use sdpa")
    starts, slopes_of_heads = read(call, query.shape[2])
    scaling = query.shape[-1] ** -0.5 if call.scaling is None else call.scaling
    window = -1 if call.window is None else call.window
    output, _ = attention(
        *(x.squeeze(0) for x in (query, key, value)),
        *(starts, slopes_of_heads, scaling, call.causal, window, call.documents.longest),
    )
    return output[None]


def read(call: AttentionCall, heads: int) -> tuple[Tensor, Tensor | None]:
    """The starts of the documents, and the slopes of ALiBi in units of the exponent of 2."""
    named, slopes = flash.read(call, heads)
    starts = named["cu_seqlens_q"]
    if slopes is None:
        return starts, None
    return starts, call.documents.once(("base 2", call.bias, heads), lambda: slopes * LOG2_E)
