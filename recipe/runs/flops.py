"""Floating-point operations of training a language model, and the share of the device's peak that they are.

Of one token, forward and backward, a matrix of N weights takes 6 N operations, or 4 N if its weights aren't
trained. Attention takes 12 x layers x hidden x length^2 of a document of that many tokens: 2 products of
2 x hidden x length^2 each, forward, and twice that backward (Kaplan et al., arXiv 2001.08361; Chowdhery et
al., arXiv 2204.02311, appendix B). Counted are real tokens and whole matrices: a technique that computes less
of them (a window, predictions of masked tokens alone) or more (padding, checkpointing) changes the time only.
"""

from typing import Any

import torch
from torch import Tensor, nn

# Dense bfloat16 operations a second, without sparsity, from NVIDIA's data sheets; the first name that fits.
PEAKS = {"H200": 989e12, "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "A100": 312e12}


def per_token(model: nn.Module) -> int | None:
    """Operations in the matrices for each token; None if some weights are neither matrices nor embeddings."""
    total = 0
    for module in model.modules():
        own = dict(module.named_parameters(recurse=False))
        if isinstance(module, nn.Linear):
            total += (6 if module.weight.requires_grad else 4) * module.in_features * module.out_features
        elif type(module).__name__ == "Conv1D":  # the linear layer of GPT-2
            total += (6 if own["weight"].requires_grad else 4) * own["weight"].numel()
        elif not isinstance(module, nn.Embedding) and any(p.ndim > 1 for p in own.values()):
            return None
    return total


def per_square(config: Any) -> int | None:
    """Operations in attention for each document, in units of its length squared; None if it isn't known."""
    layers, hidden = (getattr(config, key, None) for key in ("num_hidden_layers", "hidden_size"))
    return 12 * layers * hidden if isinstance(layers, int) and isinstance(hidden, int) else None


def squares(batch: dict[str, Tensor]) -> int:
    """The sum of the squared lengths of the documents in a batch, without padding."""
    ids = batch.get("document_ids")
    if ids is None:
        lengths = batch["attention_mask"].sum(dim=1)
    else:
        most = int(ids.max()) + 1
        rows = torch.arange(len(ids), device=ids.device)[:, None] * most
        lengths = torch.bincount((rows + ids)[ids > 0])
    return int((lengths.long() ** 2).sum())


def peak(device: str) -> float | None:
    """Bfloat16 operations a second of the CUDA device of this name; None if it isn't in the table."""
    return next((most for name, most in PEAKS.items() if name in device), None)


def utilization(flops: float | None, seconds: float, precision: str, devices: int) -> float | None:
    """The share of the devices' bfloat16 peak that training reached (MFU); None where it isn't known."""
    if not flops or not seconds or precision != "amp_bf16" or not torch.cuda.is_available():
        return None
    most = peak(torch.cuda.get_device_name())
    return None if most is None else flops / seconds / (most * devices)
