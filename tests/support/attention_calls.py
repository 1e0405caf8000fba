"""What kernels are asked: documents, calls, and the output and gradients that are expected of them."""

import reference
import torch
from dense_anchor import module
from torch import nn

from cadenza.algorithms.alibi import AlibiBias
from cadenza.attention import AttentionPlan
from cadenza.attention.call import AttentionCall
from cadenza.attention.documents import Documents

CPU = torch.device("cpu")
LENGTHS = (13, 1, 2, 7, 7, 40, 129)
REQUESTS = {
    "plain": {},
    "alibi": {"alibi": True},
    "causal": {"causal": True},
    "window": {"window": 5},
    "almost all": {"window": max(LENGTHS) - 1},
    "scaled": {"scaling": 0.1},
    "causal alibi": {"causal": True, "alibi": True},
    "causal window alibi": {"causal": True, "alibi": True, "window": 9},
    "grouped": {"key_heads": 2},
}


class Attention(nn.Module):
    """As much of an attention module as the seam looks at."""

    def __init__(self, is_causal, groups):
        super().__init__()
        self.is_causal, self.num_key_value_groups = is_causal, groups
        self.attention_plan = AttentionPlan("sdpa", positions=AlibiBias())


def call_of(lengths=LENGTHS, *, alibi=False, causal=False, window=None, scaling=None, **options):
    bias = AlibiBias() if alibi else None
    documents = options.pop("documents", None) or Documents(tuple(lengths), CPU)
    on = module(options.pop("groups", 1))
    return AttentionCall(on, bias, documents, causal, window, options.pop("dropout", 0.0), scaling)


def tokens(key_heads=4, dtype=torch.float64, device="cpu", heads=4, head_dim=16):
    generator = torch.Generator().manual_seed(0)
    sizes = [(1, sum(LENGTHS), h, head_dim) for h in (heads, key_heads, key_heads)]
    made = [torch.randn(size, dtype=torch.float64, generator=generator) for size in sizes]
    return [x.to(dtype).to(device).requires_grad_() for x in made]


def expected(request, **kwargs):
    qkv = tokens(request.get("key_heads", 4), **kwargs)
    options = {k: v for k, v in request.items() if k != "key_heads"}
    return qkv, options, with_gradients(reference.attention(*qkv, LENGTHS, **options), qkv)


def with_gradients(output, qkv):
    weights = torch.linspace(-1, 1, output.numel(), device=output.device).view_as(output).to(output.dtype)
    return [output.detach(), *torch.autograd.grad((output * weights).sum(), qkv)]
