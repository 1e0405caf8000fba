"""What the benchmarks share: batches, models, steps, and how many operations each needs."""

import argparse
from dataclasses import dataclass

import torch
from transformers import BertConfig

VOCABULARY = 30522
MASKED = 0.30
SHAPES = {  # hidden, heads, layers, rows
    "hidden 256": (256, 4, 4, 24),
    "base width": (768, 12, 4, 24),
    "base": (768, 12, 12, 256),
}


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


def cases(rows: int, only: str = "") -> dict[str, Batch]:
    """The batches: 128 columns with 0, 25 and 50 % padding, and lengths uniform in 16 ... 512."""
    even = torch.linspace
    made = {
        "0 % padding": ([128] * rows, 128),
        "25 % padding": (even(64, 128, rows).round().int().tolist(), 128),
        "50 % padding": (even(2, 126, rows).round().int().tolist(), 128),
        "16..512": (even(16, 512, rows // 2).round().int().tolist(), 512),
    }
    return {name: batch(*made[name]) for name in made if name.startswith(only)}


def config(shape: str) -> BertConfig:
    """BERT of a shape, without dropout."""
    hidden, heads, layers, _ = SHAPES[shape]
    return BertConfig(
        hidden_size=hidden,
        num_attention_heads=heads,
        num_hidden_layers=layers,
        intermediate_size=4 * hidden,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


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
    """A closure that trains `model` on `inputs` by one step (CUDA: bf16 autocast); returns the loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    device = next(model.parameters()).device
    inputs = {name: tensor.to(device) for name, tensor in inputs.items()}

    def run() -> torch.Tensor:
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=device.type == "cuda"):
            loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return run


def options(description: str, shapes: list[str]) -> argparse.Namespace:
    """The command line that every benchmark has."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=raw)
    parser.add_argument("--rounds", type=int, default=9, help="turns of each variant")
    parser.add_argument("--shape", choices=shapes, action="append", help="default: all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--case", default="", help="of the batches, those whose name starts so")
    chosen = parser.parse_args()
    chosen.shape = chosen.shape or shapes
    torch.set_num_threads(chosen.threads)
    return chosen
