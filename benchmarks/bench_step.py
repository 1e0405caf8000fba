"""How much faster is a training step than stock Hugging Face BERT's, and how much of that is work not done?

Same weights, same batch: stock (SDPA on padded rows, logits at every position) against `unpadding` with
`sparse_prediction`. A step is forward, backward and a fused AdamW; dropout is off, so that the losses are
equal. `python benchmarks/bench_step.py --help` says what can be chosen.
"""

import argparse
import copy
from dataclasses import dataclass

import torch
from harness import Variant, Work, compare, record
from transformers import BertConfig, BertForMaskedLM

from cadenza.algorithms import apply_sparse_prediction, apply_unpadding

VOCABULARY = 30522
MASKED = 0.30
SHAPES = {"hidden 256": (256, 4, 4, 24), "base width": (768, 12, 4, 12)}  # hidden, heads, layers, rows


@dataclass(frozen=True)
class Batch:
    """Rows of real lengths in a padded batch, with 30 % of the real tokens labelled."""

    inputs: dict[str, torch.Tensor]
    lengths: list[int]

    @property
    def labelled(self) -> int:
        return int((self.inputs["labels"] != -100).sum())


def batch(lengths: list[int], width: int, seed: int = 0) -> Batch:
    """A batch of `width` columns."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, VOCABULARY, (len(lengths), width), generator=generator)
    mask = (torch.arange(width)[None] < torch.tensor(lengths)[:, None]).long()
    drawn = torch.rand(ids.shape, generator=generator) < MASKED
    labels = ids.masked_fill(~drawn | (mask == 0), -100)
    return Batch({"input_ids": ids * mask, "attention_mask": mask, "labels": labels}, lengths)


def cases(rows: int) -> dict[str, Batch]:
    """The batches: 128 columns with 0, 25 and 50 % padding, and lengths uniform in 16 ... 512."""
    even = torch.linspace
    made = {
        "0 % padding": ([128] * rows, 128),
        "25 % padding": (even(64, 128, rows).round().int().tolist(), 128),
        "50 % padding": (even(2, 126, rows).round().int().tolist(), 128),
        "16..512": (even(16, 512, rows // 2).round().int().tolist(), 512),
    }
    return {name: batch(lengths, width) for name, (lengths, width) in made.items()}


def encoder_flops(config: BertConfig, lengths: list[int], gated: bool = False) -> float:
    """Of the layers, forward and backward: matrix products, and attention on rows of these lengths."""
    d, i, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    weights = 4 * d * d + (3 if gated else 2) * d * i
    return layers * sum(6 * weights * n + 12 * d * n * n for n in lengths)


def head_flops(config: BertConfig, rows: int) -> float:
    """Of the masked-LM head on so many rows, forward and backward."""
    d = config.hidden_size
    return 6 * rows * (d * config.vocab_size + d * d)


def skipped_flops(config: BertConfig, tokens: int, labelled: int, gated: bool = False) -> float:
    """What the row-wise part of the last layer saves on rows without a label."""
    d, i = config.hidden_size, config.intermediate_size
    return 6 * (tokens - labelled) * (d * d + (3 if gated else 2) * d * i)


def step(model: torch.nn.Module, inputs: dict[str, torch.Tensor]):
    """A closure that trains `model` on `inputs` by one step, and returns the loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def run() -> float:
        loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss)

    return run


def run(shape: str, rounds: int) -> None:
    """All cases of a shape. Prints the speed-up over the ratio of necessary operations, too."""
    hidden, heads, layers, rows = SHAPES[shape]
    sizes = {"hidden_size": hidden, "num_attention_heads": heads, "num_hidden_layers": layers}
    config = BertConfig(
        **sizes, intermediate_size=4 * hidden, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    torch.manual_seed(0)
    stock = BertForMaskedLM(config).train()
    lean = copy.deepcopy(stock)
    apply_unpadding(lean)
    apply_sparse_prediction(lean)
    for name, data in cases(rows).items():
        width = data.inputs["input_ids"].shape[1]
        tokens = sum(data.lengths)
        slots = width * len(data.lengths)
        dense = encoder_flops(config, [width] * len(data.lengths)) + head_flops(config, slots)
        needed = encoder_flops(config, data.lengths) + head_flops(config, data.labelled)
        done = needed - skipped_flops(config, tokens, data.labelled)
        variants = [
            Variant("stock", step(stock, data.inputs), Work(dense, tokens)),
            Variant("unpadding+sparse", step(lean, data.inputs), Work(done, tokens)),
        ]
        first = [v.step() for v in variants]
        assert abs(first[0] - first[1]) < 1e-4 * first[0], f"the losses differ: {first}"
        measured = compare("step", f"{shape}, {name}", variants, rounds)
        gain = measured[1].speedup / (dense / needed)
        print(
            f"{shape}, {name}: {dense / needed:.2f}x fewer operations necessary; speed-up {gain:.2f} of that"
        )
        record(measured, "step")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--shape", choices=SHAPES, action="append", help="default: all")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for shape in options.shape or SHAPES:
        run(shape, options.rounds)


if __name__ == "__main__":
    main()
