"""What kernels read of a batch, made before its layers run, so that a compiled layer is one graph.

A graph can't read the documents' lengths, since each batch has others, and ends where a layer has to wait for
something that is made of them. Calls, dtypes and shapes are known only in the layers, so they are expected
here as most models have them. Where a layer has others, it makes what it reads itself: the numbers are the
same, and a compiled layer has a graph more.
"""

from typing import Any

import torch

from cadenza.attention.call import AttentionCall
from cadenza.attention.documents import Documents
from cadenza.attention.kernels.table import KERNELS, Needs, chosen, features
from cadenza.attention.modules import attention_modules
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.runtime import autocast_dtype, uncompiled

HEADS = ("num_heads", "num_attention_heads", "n_heads")
HEAD_DIM = ("head_dim", "attention_head_size")


@uncompiled
def make_ahead(base: Any, documents: Documents) -> None:
    """Make what the kernels of the layers of `base` will read of `documents`."""
    for module in {_alike(module): module for module in attention_modules(base)}.values():
        call = AttentionCall.of(
            module, documents, {"sliding_window": getattr(module, "sliding_window", None)}
        )
        own = vars(module.config) | vars(module)  # not getattr: configs may refuse what differs by layer
        heads, size = (next((own[n] for n in names if n in own), None) for names in (HEADS, HEAD_DIM))
        if heads and size and (kernel := _kernel(call, size, base.dtype)) is not None:
            KERNELS[kernel].read(call, heads)


def _alike(module: Any) -> tuple:
    """What is equal in modules whose calls read the same."""
    own = vars(module)
    sizes = (own.get(name) for name in (*HEADS, *HEAD_DIM, "sliding_window", "is_causal"))
    return type(module), id(module.config), module.attention_plan, *sizes


def _kernel(call: AttentionCall, head_dim: int, weights: torch.dtype) -> str | None:
    """The kernel for a query of the usual dtype; None if there is none."""
    like = torch.empty(0, device=call.documents.device, dtype=weights)
    dtype = autocast_dtype(like) or weights
    needs = Needs(like.device.type, str(dtype).removeprefix("torch."), head_dim, **features(call))
    try:
        return chosen(call.module.attention_plan.kernel, call, needs)
    except SurgeryError:  # the layer will say so, if it is true
        return None
