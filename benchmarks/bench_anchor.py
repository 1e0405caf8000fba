"""Anchor attention against full causal attention on long windows.

`layer`: one attention of 8 heads x 64, forward and backward, documents of 1,024 tokens. `model`: a step of 4
decoder layers of SmolLM2-135M's shape without the LM head. On a GPU: the attention of Llama-3-8B (32 heads x
128, 8 of keys and values) at 8,192 to 131,072 in bfloat16, full, intra-document and with an anchor, for each
kernel that runs there.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from harness import Variant, Work, compare, record
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from cadenza.algorithms import apply_anchor_attention, apply_flash_attention
from cadenza.studies.context_cost import pairs
from cadenza.surgery import kernels
from cadenza.surgery.anchor import Anchor
from cadenza.surgery.kernels import Needs
from cadenza.surgery.varlen import Varlen

SMOLLM2 = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 4,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "max_position_embeddings": 2**17,
}
TRAINING = 3.5  # operations of a step of attention, in those of its forward: the flash backward recomputes


def module(groups: int) -> Any:
    """As much of an attention module as a kernel looks at."""
    plan = SimpleNamespace(stock="sdpa")
    return SimpleNamespace(is_causal=True, num_key_value_groups=groups, attention_plan=plan)


def document_ids(window: int, length: int, device: str) -> Tensor:
    """(1, window): the anchor, then documents of `length` tokens, the last as long as there is room."""
    return ((torch.arange(window, device=device) + length - 1) // length)[None]


@dataclass(frozen=True)
class Layer:
    """One attention: heads of queries, and of keys and values, and their size."""

    heads: tuple[int, int]
    width: int
    dtype: torch.dtype

    def variants(self, window: int, length: int, names: dict[str, list[str]]) -> list[Variant]:
        """Full causal SDPA, then documents by mode (`anchor`, `intra_document`), on each kernel of it."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        shapes = [(1, window, n, self.width) for n in (self.heads[0], self.heads[1], self.heads[1])]
        qkv = [torch.randn(s, device=device, dtype=self.dtype).requires_grad_() for s in shapes]
        ids, ops = document_ids(window, length, device), 4 * self.heads[0] * self.width * TRAINING
        work = {mode: Work(ops * pairs(mode, window, length), window) for mode in ("full", *names)}
        found = [Variant("full causal SDPA", both_ways(full, qkv), work["full"])]
        for mode, kernel in ((m, k) for m, able in names.items() for k in able):
            step = both_ways(by_document(mode, kernel, ids), qkv)
            found.append(Variant(f"{mode}, {kernel}", step, work[mode]))
        return found


def full(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention to the whole window."""
    qkv = (x.transpose(1, 2) for x in (query, key, value))
    options = {"is_causal": True, "enable_gqa": query.shape[2] != key.shape[2]}
    return nn.functional.scaled_dot_product_attention(*qkv, **options).transpose(1, 2)


def by_document(mode: str, name: str, ids: Tensor) -> Callable[..., Tensor]:
    """Attention by document on a kernel; to find the documents is part of it."""

    def forward(*qkv: Tensor) -> Tensor:
        documents = Anchor(mode).documents(ids, ids.device)
        call = Varlen.of(module(qkv[0].shape[2] // qkv[1].shape[2]), None, documents, {})
        return kernels.run(name, call, *qkv)

    return forward


def both_ways(forward: Callable[..., Tensor], qkv: list[Tensor]) -> Callable[[], object]:
    """A step: `forward`, and its backward."""
    grad = torch.randn_like(qkv[0])

    def step() -> None:
        forward(*qkv).backward(grad)
        for x in qkv:
            x.grad = None

    return step


def layer(kind: Layer, window: int, length: int, names: dict[str, list[str]], rounds: int) -> None:
    """Time a layer's variants, and record them."""
    variants = kind.variants(window, length, names)
    record(compare("anchor", f"layer, {window} by {length}", variants, rounds, kind.dtype), "anchor")


def model(window: int, length: int, rounds: int) -> None:
    """Full causal attention, then the same weights with an anchor.

    Both through the seam: stock SDPA with groups of heads materializes the scores on a CPU in torch 2.7.
    """
    stock, ours = (LlamaModel(LlamaConfig(**SMOLLM2)).train() for _ in range(2))
    ours.load_state_dict(stock.state_dict())
    for llama, mode in ((stock, "full"), (ours, "anchor")):
        apply_anchor_attention(llama, mode)
        apply_flash_attention(llama, "sdpa")
    tokens, ids = torch.randint(0, 49152, (1, window)), document_ids(window, length, "cpu")

    def step(llama: LlamaModel) -> Callable[[], object]:
        def run() -> None:
            llama(input_ids=tokens, document_ids=ids).last_hidden_state.square().mean().backward()
            llama.zero_grad(set_to_none=True)

        return run

    weights = sum(p.numel() for p in stock.layers.parameters())
    ops = 4 * 9 * 64 * TRAINING * 4
    variants = [
        Variant(name, step(llama), Work(6 * weights * window + ops * pairs(mode, window, length), window))
        for name, llama, mode in (("full causal SDPA", stock, "full"), ("anchor, sdpa", ours, "anchor"))
    ]
    record(compare("anchor", f"4 layers, {window} by {length}", variants, rounds), "anchor")


def on_gpu(rounds: int) -> None:
    needs = {
        "intra_document": Needs("cuda", "bfloat16", causal=True),
        "anchor": Needs("cuda", "bfloat16", causal=True, anchor=True),
    }
    able = {m: [k for k in kernels.KERNELS if kernels.lacks(k, need) is None] for m, need in needs.items()}
    for window in (8_192, 32_768, 65_536, 131_072):
        for length in (1024, 2048):
            layer(Layer((32, 8), 128, torch.bfloat16), window, length, able, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--windows", type=int, nargs="+", default=[4096, 8192, 16384, 32768])
    chosen = parser.parse_args()
    torch.manual_seed(0)
    if torch.cuda.is_available():
        return on_gpu(chosen.rounds)
    for window in chosen.windows:
        names = {"anchor": ["sdpa", "merged"]}
        layer(Layer((8, 8), 64, torch.float32), window, 1024, names, chosen.rounds)
    model(16_384, 1024, chosen.rounds)


if __name__ == "__main__":
    main()
