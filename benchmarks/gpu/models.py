"""The models of bench_gpu: stock, with MosaicBERT's techniques, and with compiled layers."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from harness import Work
from transformers import BertConfig, BertForMaskedLM, ModernBertConfig, ModernBertForMaskedLM
from workloads import Batch, encoder_flops, head_flops

from cadenza.algorithms import (
    apply_alibi,
    apply_flash_attention,
    apply_glu,
    apply_low_precision_norm,
    apply_sparse_prediction,
    apply_unpadding,
    apply_vocab_padding,
)
from cadenza.attention.kernels.table import KERNELS, Needs, lacks
from cadenza.recipe.parallelism import is_layer

Models = Iterator[tuple[str, Any]]
"""Names and models; each model is built on request, since not all of them fit on a GPU at once."""

TECHNIQUES = {
    "alibi": apply_alibi,
    "glu": apply_glu,
    "low_precision_norm": apply_low_precision_norm,
    "vocab_padding": apply_vocab_padding,
    "unpadding": apply_unpadding,
    "sparse_prediction": apply_sparse_prediction,
}
EVERY = tuple(TECHNIQUES)
MODERN = ("low_precision_norm", "unpadding", "sparse_prediction")  # ModernBERT has counterparts of the others
WINDOW = 128  # tokens that a token sees in ModernBERT's local layers


@dataclass(frozen=True)
class Shape:
    """A model's sizes, the tokens of a batch with padding, and how many models fit on a GPU at once."""

    hidden: int
    heads: int
    layers: int
    intermediate: int
    tokens: int
    together: int = 12

    @property
    def sizes(self) -> dict[str, int]:
        return {
            "hidden_size": self.hidden,
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "intermediate_size": self.intermediate,
        }


def stock(shape: Shape, columns: int, device: str, vocabulary: int = 30522) -> BertForMaskedLM:
    """Hugging Face BERT without dropout, with positions for `columns` columns."""
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    positions = max(columns, 512)
    config = BertConfig(**shape.sizes, **dropout, vocab_size=vocabulary, max_position_embeddings=positions)
    with torch.device(device):
        return BertForMaskedLM(config).train()


def modernbert(shape: Shape, columns: int, device: str) -> ModernBertForMaskedLM:
    """Hugging Face ModernBERT."""
    config = ModernBertConfig(**shape.sizes, max_position_embeddings=columns)
    with torch.device(device):
        return ModernBertForMaskedLM(config).train()


def ladder(base: Any, names: tuple[str, ...], kernels: list[str], backend: str) -> Models:
    """Stock BERT, each technique on top of those before it, and then `ends`."""
    yield "stock", base
    model = base
    for name in names:
        model = copy.deepcopy(model)
        TECHNIQUES[name](model)
        yield f"+ {name}", model
    yield from ends(base, model, kernels, backend)


def ends(base: Any, model: Any, kernels: list[str], backend: str) -> Models:
    """`model` with `flash_attention` on each kernel; then `base`, and `model` on the first, compiled."""
    for kernel in kernels:
        yield f"+ flash_attention, {kernel}", on_kernel(model, kernel)
    yield "stock, compiled", compiled(copy.deepcopy(base), backend)
    yield f"all, {kernels[0]}, compiled", compiled(on_kernel(model, kernels[0]), backend)


def on_kernel(model: Any, kernel: str) -> Any:
    """A copy of `model` whose attention runs on `kernel`."""
    model = copy.deepcopy(model)
    apply_flash_attention(model, kernel)
    return model


def compiled(model: Any, backend: str) -> Any:
    """`model` with each of its layers compiled separately, for any number of rows."""
    for layer in filter(is_layer, model.modules()):
        layer.compile(dynamic=True, backend=backend)
    return model


def able(device: str, dtype: torch.dtype) -> list[str]:
    """The kernels that run here with ALiBi; `sdpa`, the default of `unpadding`, only if no other runs."""
    needs = Needs(device, str(dtype).removeprefix("torch."), alibi=True)
    return [k for k in KERNELS if k != "sdpa" and lacks(k, needs) is None] or ["sdpa"]


def needed(model: Any, batch: Batch) -> Work:
    """The operations that the loss of `batch` needs, and its real tokens."""
    config, lengths = model.config, batch.lengths
    flops = encoder_flops(config, lengths, _gated(model)) + head_flops(config, batch.labelled)
    local = list(getattr(config, "layer_types", None) or []).count("sliding_attention")
    hidden_pairs = sum(n * max(n - WINDOW, 0) for n in lengths)  # outside the windows of local layers
    return Work(flops - local * 12 * config.hidden_size * hidden_pairs, sum(lengths))


def _gated(model: Any) -> bool:
    """Whether the feed-forwards project to gates as well."""
    if isinstance(model.config, ModernBertConfig):
        return True
    return model.bert.encoder.layer[0].intermediate.dense.out_features > model.config.intermediate_size
