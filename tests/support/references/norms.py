"""Norms of each kind, by size."""

from torch import nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

NORMS = {
    "layer": nn.LayerNorm,
    "layer_without_bias": lambda size: nn.LayerNorm(size, bias=False),
    "layer_without_affine": lambda size: nn.LayerNorm(size, elementwise_affine=False),
    "rms": lambda size: nn.RMSNorm(size, eps=1e-6),
    "llama": LlamaRMSNorm,
}
