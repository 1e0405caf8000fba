"""How long does a model of 135 million parameters take to prove a technique of attention?

OLMo-2's classes, of no tested family, in the shape of SmolLM2-135M, with random weights in float32. Each
technique is applied with its proof and without it in turn; the time is the median.
"""

import statistics
import time

import torch
from harness import append, parser
from transformers import Olmo2Config, Olmo2ForCausalLM

from cadenza import algorithms

TECHNIQUES = {
    **{
        name: {} for name in ("unpadding", "flash_attention", "sequence_packing", "anchor_attention", "alibi")
    },
    "sliding_window": {"window": 64},
    "bf16_safe_rope": {},
}
SHAPE = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9}
SHAPE |= {"num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True}
ENDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}


def seconds(model: torch.nn.Module, name: str, prove: bool) -> float:
    """The time to apply a technique, which is undone afterwards."""
    apply = getattr(algorithms, f"apply_{name}")
    start = time.perf_counter()
    report = apply(model, **TECHNIQUES[name], prove=prove)
    taken = time.perf_counter() - start
    report.undo()
    return taken


def main() -> None:
    chosen = parser(__doc__, rounds=5).parse_args()
    torch.manual_seed(0)
    model, rows = Olmo2ForCausalLM(Olmo2Config(**SHAPE, **ENDS)), []
    for name in TECHNIQUES:
        both = [[seconds(model, name, prove) for prove in (True, False)] for _ in range(chosen.rounds)]
        proved, bare = (statistics.median(times) for times in zip(*both, strict=True))
        rows.append({"technique": name, "with_proof": proved, "without": bare})
        print(f"{name:<18} {proved:6.2f} s with its proof, {bare:.3f} s without", flush=True)
    print(append(rows, "proof"))


if __name__ == "__main__":
    main()
