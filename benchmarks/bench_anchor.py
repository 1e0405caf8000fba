"""Anchor attention against full causal attention on long windows.

On a CPU: `layer`, one attention of 8 heads x 64, forward and backward, with documents of 1,024 tokens; and
`model`, a step of 4 decoder layers of SmolLM2-135M's shape without the LM head. On a GPU: the attention of
Llama-3-8B (32 heads x 128, 8 heads of keys and values) in bfloat16 at 8,192 to 131,072 tokens: full,
intra-document and with an anchor, on each kernel that runs there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from harness import CUDA, DEVICE, Missed, Variant, Work, compare, parser, record
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from cadenza.algorithms import apply_anchor_attention, apply_flash_attention
from cadenza.attention.anchor import Anchor
from cadenza.attention.call import AttentionCall
from cadenza.attention.kernels import table as kernels
from cadenza.attention.kernels.table import Needs
from cadenza.attention.plan import AttentionPlan
from cadenza.studies.context_cost import pairs

SMOLLM2 = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 4,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "max_position_embeddings": 2**17,
}
TRAINING = (
    3.5  # operations of forward and backward over those of forward; a flash backward recomputes scores,
)
# so that `share` is one of what the device computes, and not of what the loss needs


def module(groups: int) -> Any:
    """A stand-in for an attention module, with the attributes that kernels read."""
    plan = AttentionPlan(stock="sdpa")
    return SimpleNamespace(is_causal=True, num_key_value_groups=groups, attention_plan=plan)


def document_ids(window: int, length: int, device: str) -> Tensor:
    """The ids (1, window) of the anchor and of documents of `length` tokens; the last may be shorter."""
    return ((torch.arange(window, device=device) + length - 1) // length)[None]


@dataclass(frozen=True)
class Layer:
    """One attention: its heads of queries and of keys and values, the size of a head, and the dtype."""

    heads: tuple[int, int]
    width: int
    dtype: torch.dtype

    def variants(self, window: int, length: int, names: dict[str, list[str]]) -> list[Variant]:
        """Full causal SDPA, then each mode (`anchor`, `intra_document`) in `names` on its kernels."""
        shapes = [(1, window, n, self.width) for n in (self.heads[0], self.heads[1], self.heads[1])]
        qkv = [torch.randn(s, device=DEVICE, dtype=self.dtype).requires_grad_() for s in shapes]
        ids, ops = document_ids(window, length, DEVICE), 4 * self.heads[0] * self.width * TRAINING
        work = {mode: Work(ops * pairs(mode, window, length), window) for mode in ("full", *names)}
        found = [Variant("full causal SDPA", forward_backward(full, qkv), work["full"])]
        for mode, kernel in ((m, k) for m, kernels_of in names.items() for k in kernels_of):
            step = forward_backward(by_document(mode, kernel, ids), qkv)
            found.append(Variant(f"{mode}, {kernel}", step, work[mode]))
        return found


def full(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention to the whole window."""
    qkv = (x.transpose(1, 2) for x in (query, key, value))
    options = {"is_causal": True, "enable_gqa": query.shape[2] != key.shape[2]}
    return nn.functional.scaled_dot_product_attention(*qkv, **options).transpose(1, 2)


def by_document(mode: str, name: str, ids: Tensor) -> Callable[..., Tensor]:
    """Attention by document on the kernel `name`; finding the documents is timed as well."""

    def forward(*qkv: Tensor) -> Tensor:
        documents = Anchor(mode).documents(ids, ids.device)
        call = AttentionCall.of(module(qkv[0].shape[2] // qkv[1].shape[2]), documents, {})
        return kernels.run(name, call, *qkv)

    return forward


def forward_backward(forward: Callable[..., Tensor], qkv: list[Tensor]) -> Callable[[], object]:
    """A step of `forward` and its backward."""
    grad = torch.randn_like(qkv[0])

    def step() -> None:
        forward(*qkv).backward(grad)
        for x in qkv:
            x.grad = None

    return step


def layer(kind: Layer, window: int, length: int, names: dict[str, list[str]], rounds: int) -> None:
    """Time a layer's variants, print those that fail, and record the others."""
    case, missed = f"layer, {window} by {length}", Missed()
    ready = missed.ready(case, kind.variants(window, length, names))
    record(compare("anchor", case, ready, rounds, kind.dtype), "anchor")
    missed.print()


def model(window: int, length: int, rounds: int) -> None:
    """Time full causal attention and the same weights with an anchor, and record them.

    Both use the `sdpa` kernel: in torch 2.7 stock SDPA with groups of heads materializes the scores on a CPU.
    """
    names = {"full": "full causal SDPA", "anchor": "anchor, sdpa"}
    models = {mode: LlamaModel(LlamaConfig(**SMOLLM2)).train() for mode in names}
    models["anchor"].load_state_dict(models["full"].state_dict())
    for mode, llama in models.items():
        apply_anchor_attention(llama, mode)
        apply_flash_attention(llama, "sdpa")
    tokens, ids = torch.randint(0, 49152, (1, window)), document_ids(window, length, "cpu")

    def step(llama: LlamaModel) -> Callable[[], object]:
        def run() -> None:
            llama(input_ids=tokens, document_ids=ids).last_hidden_state.square().mean().backward()
            llama.zero_grad(set_to_none=True)

        return run

    weights = sum(p.numel() for p in models["full"].layers.parameters())
    ops = 4 * 9 * 64 * TRAINING * 4
    variants = [
        Variant(names[m], step(llama), Work(6 * weights * window + ops * pairs(m, window, length), window))
        for m, llama in models.items()
    ]
    record(compare("anchor", f"4 layers, {window} by {length}", variants, rounds), "anchor")


def on_gpu(rounds: int) -> None:
    """Time the layers of Llama-3-8B and record them."""
    needs = {
        "intra_document": Needs("cuda", "bfloat16", causal=True),
        "anchor": Needs("cuda", "bfloat16", causal=True, anchor=True),
    }
    able = {m: [k for k in kernels.KERNELS if kernels.lacks(k, need) is None] for m, need in needs.items()}
    for window in (8_192, 32_768, 65_536, 131_072):
        for length in (1024, 2048):
            layer(Layer((32, 8), 128, torch.bfloat16), window, length, able, rounds)


def main() -> None:
    options = parser(__doc__, rounds=5)
    options.add_argument("--windows", type=int, nargs="+", default=[4096, 8192, 16384, 32768])
    chosen = options.parse_args()
    torch.manual_seed(0)
    if CUDA:
        return on_gpu(chosen.rounds)
    for window in chosen.windows:
        names = {"anchor": ["sdpa"]}
        layer(Layer((8, 8), 64, torch.float32), window, 1024, names, chosen.rounds)
    model(16_384, 1024, chosen.rounds)


if __name__ == "__main__":
    main()
