"""The memory of a recipe's training step: as estimated on shapes, and as a real step on a CPU allocates it.

    OMP_NUM_THREADS=1 PYTHONPATH=tests/support/runs python benchmarks/cpu/bench_memory.py

The measured bytes are those of torch's profiler, which sees each allocation of a tensor. They aren't timed,
so they are the same in each run.
"""

import csv
import tempfile
from importlib.metadata import version
from pathlib import Path

from real_steps import peak_of_run

from cadenza.recipe import load
from cadenza.recipe.memory import Setting, estimate

RESULTS = Path(__file__).parents[1] / "results/memory.csv"
DECODER = "{num_key_value_heads: 4, max_position_embeddings: 8192, %s}"
SIZE = "hidden_size: 256, num_hidden_layers: 6, num_attention_heads: 8, intermediate_size: 768"
LLAMA = "model: {objective: causal_lm, model_type: llama, gradient_checkpointing: %s, config: %s%s}"
BERT = f"model: {{model_type: bert, config: {{{SIZE}}}}}"
ADAPTERS = ", lora: {r: 8}"
CASES = {  # model, tokens, rows of a batch and of a micro-batch
    "decoder": (LLAMA % ("false", DECODER % SIZE, ""), 512, 4, 4),
    "decoder, checkpointed": (LLAMA % ("true", DECODER % SIZE, ""), 512, 4, 4),
    "decoder, checkpointed, 4,096 tokens": (LLAMA % ("true", DECODER % SIZE, ""), 4096, 1, 1),
    "decoder, micro-batches": (LLAMA % ("false", DECODER % SIZE, ""), 512, 8, 2),
    "decoder, adapters": (LLAMA % ("true", DECODER % SIZE, ADAPTERS), 512, 4, 4),
    "encoder": (BERT, 256, 8, 8),
    "encoder, sparse_prediction": (f"{BERT}\nalgorithms: {{sparse_prediction: {{}}}}", 256, 8, 8),
}
RECIPE = """{}
tokenizer: {{name: byte_bpe, vocab_size: 8000}}
data: {{max_seq_len: {}}}
optimizer: {{name: adamw}}
train: {{global_batch_size: {}, device_train_microbatch_size: {}, precision: fp32}}
"""


def row(case: str) -> dict[str, object]:
    """The estimated and the measured MiB of a case."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(RECIPE.format(*CASES[case]))
        recipe = load([str(path)], [])
    found, measured = estimate(Setting.of(recipe, 1, cuda=False)), peak_of_run(recipe)
    sizes = {name: round(size / 2**20, 2) for name, size in found.parts.items()}
    total = {"estimated": round(found.total / 2**20, 2), "measured": round(measured / 2**20, 2)}
    versions = {name: version(name) for name in ("torch", "transformers")}
    return {"case": case, **total, "ratio": round(found.total / measured, 4), "parts": sizes, **versions}


def main() -> None:
    rows = [row(case) for case in CASES]
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for each in rows:
        print(each)


if __name__ == "__main__":
    main()
