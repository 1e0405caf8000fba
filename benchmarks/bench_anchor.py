"""Anchor attention against full causal attention on long windows.

`layer`: one attention of 8 heads x 64, forward and backward, documents of 1,024 tokens. `model`: a step of 4
decoder layers of SmolLM2-135M's shape without the LM head. On a GPU: the attention of Llama-3-8B (32 heads x
128, 8 of keys and values) at 8,192 to 131,072 in bfloat16, full, intra-document and with an anchor, for each
kernel that runs there.
"""

import argparse
from collections.abc import Callable
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


def layer(
    window: int,
    length: int,
    names: dict[str, list[str]],
    rounds: int,
    heads: tuple[int, int],
    width: int,
    dtype,
) -> None:
    """Full causal SDPA, then documents by mode (`anchor`, `intra_document`), on each kernel named for it."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shapes = [(1, window, n, width) for n in (heads[0], heads[1], heads[1], heads[0])]
    *qkv, grad = (torch.randn(shape, device=device, dtype=dtype) for shape in shapes)
    for x in qkv:
        x.requires_grad_()
    ids = document_ids(window, length, device)
    gqa = heads[0] != heads[1]

    def full() -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in qkv)
        return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=gqa).transpose(
            1, 2
        )

    def by_document(mode: str, name: str) -> Callable[[], Tensor]:
        def forward() -> Tensor:
            documents = Anchor(mode).documents(ids, ids.device)  # its cost is part of a step
            return kernels.run(name, Varlen.of(module(heads[0] // heads[1]), None, documents, {}), *qkv)

        return forward

    def both_ways(forward: Callable[[], Tensor]) -> Callable[[], object]:
        def step() -> None:
            forward().backward(grad)
            for x in qkv:
                x.grad = None

        return step

    ops = 4 * heads[0] * width * TRAINING
    work = {mode: Work(ops * pairs(mode, window, length), window) for mode in ("full", *names)}
    variants = [Variant("full causal SDPA", both_ways(full), work["full"])]
    variants += [
        Variant(f"{mode}, {name}", both_ways(by_document(mode, name)), work[mode])
        for mode in names
        for name in names[mode]
    ]
    record(compare("anchor", f"layer, {window} by {length}", variants, rounds, dtype), "anchor")


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
    torch._dynamo.config.fail_on_recompile_limit_hit = True  # and not run FlexAttention uncompiled
    needs = {
        "intra_document": Needs("cuda", "bfloat16", causal=True),
        "anchor": Needs("cuda", "bfloat16", causal=True, anchor=True),
    }
    able = {m: [k for k in kernels.KERNELS if kernels.lacks(k, need) is None] for m, need in needs.items()}
    for window in (8_192, 32_768, 65_536, 131_072):
        for length in (1024, 2048):
            layer(window, length, able, rounds, (32, 8), 128, torch.bfloat16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--windows", type=int, nargs="+", default=[4096, 8192, 16384, 32768])
    chosen = parser.parse_args()
    torch.manual_seed(0)
    if torch.cuda.is_available():
        return on_gpu(chosen.rounds)
    for window in chosen.windows:
        layer(window, 1024, {"anchor": ["sdpa", "merged"]}, chosen.rounds, (8, 8), 64, torch.float32)
    model(16_384, 1024, chosen.rounds)


if __name__ == "__main__":
    main()
