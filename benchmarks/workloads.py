"""What the benchmarks share: batches, models, training steps, counts of operations, the command line."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from harness import Variant, parser
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
    """A padded batch of rows with these lengths; 30 % of the real tokens are labelled."""

    inputs: dict[str, torch.Tensor]
    lengths: list[int]

    @property
    def labelled(self) -> int:
        return int((self.inputs["labels"] != -100).sum())


def batch(lengths: list[int], width: int, seed: int = 0) -> Batch:
    """A batch of random tokens with `width` columns."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, VOCABULARY, (len(lengths), width), generator=generator)
    mask = (torch.arange(width)[None] < torch.tensor(lengths)[:, None]).long()
    masked = torch.rand(ids.shape, generator=generator) < MASKED
    labels = ids.masked_fill(~masked | (mask == 0), -100)
    return Batch({"input_ids": ids * mask, "attention_mask": mask, "labels": labels}, lengths)


def cases(rows: int, only: str = "") -> dict[str, Batch]:
    """The batches whose name begins with `only`: by padding at 128 columns, and lengths of 16 to 512."""
    spans = {  # shortest, longest, rows, columns
        "0 % padding": (128, 128, rows, 128),
        "25 % padding": (64, 128, rows, 128),
        "50 % padding": (2, 126, rows, 128),
        "16..512": (16, 512, rows // 2, 512),
    }
    return {
        name: batch(torch.linspace(*span).round().int().tolist(), width)
        for name, (*span, width) in spans.items()
        if name.startswith(only)
    }


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
    """The operations of the layers, forward and backward, with attention on rows of these lengths."""
    d, i, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    weights = 4 * d * d + (3 if gated else 2) * d * i
    return layers * sum(6 * weights * n + 12 * d * n * n for n in lengths)


def head_flops(config: BertConfig, rows: int) -> float:
    """The operations of the masked-LM head on `rows` rows, forward and backward."""
    d = config.hidden_size
    return 6 * rows * (d * config.vocab_size + d * d)


def skipped_flops(config: BertConfig, tokens: int, labelled: int, gated: bool = False) -> float:
    """The operations that the row-wise part of the last layer saves on rows without a label."""
    d, i = config.hidden_size, config.intermediate_size
    return 6 * (tokens - labelled) * (d * d + (3 if gated else 2) * d * i)


def step(model: torch.nn.Module, inputs: dict[str, torch.Tensor]):
    """A function that trains `model` on `inputs` for one step (CUDA: bf16 autocast) and returns the loss."""
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


def check_losses(variants: list[Variant]) -> None:
    """Raise if the first step of the second variant gives another loss than that of the first."""
    first, second = (float(variant.step()) for variant in variants)
    assert abs(first - second) < 1e-4 * first, f"the losses differ: {first}, {second}"


def main(description: str | None, run: Callable[[str, int, str], None]) -> None:
    """The command line of a benchmark: `run(shape, rounds, case)` for each chosen shape."""
    options, shapes = parser(description, rounds=9), ["hidden 256", "base width"]
    options.add_argument("--shape", choices=shapes, action="append", help="default: all")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--case", default="", help="the batches whose name begins like this")
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    for shape in chosen.shape or shapes:
        run(shape, chosen.rounds, chosen.case)
