"""How much faster is a training step than stock Hugging Face BERT's, and how much of that is work not done?

Same weights, same batch: stock (SDPA on padded rows, logits at every position) against `unpadding` with
`sparse_prediction`. A step is forward, backward and a fused AdamW; dropout is off, so that the losses are
equal.
"""

import copy

import torch
from bert import SHAPES, Batch, cases, config, encoder_flops, head_flops, options, skipped_flops, step
from harness import Variant, Work, compare, record
from transformers import BertForMaskedLM

from cadenza.algorithms import apply_sparse_prediction, apply_unpadding


def models(shape: str) -> tuple[BertForMaskedLM, BertForMaskedLM]:
    """Stock BERT, and the same weights, operated on."""
    torch.manual_seed(0)
    stock = BertForMaskedLM(config(shape)).train()
    lean = copy.deepcopy(stock)
    apply_unpadding(lean)
    apply_sparse_prediction(lean)
    return stock, lean


def run(shape: str, rounds: int, only: str) -> None:
    """The cases of a shape."""
    stock, lean = models(shape)
    for name, batch in cases(SHAPES[shape][-1], only).items():
        dense, needed, done = operations(shape, batch)
        tokens = sum(batch.lengths)
        variants = [
            Variant("stock", step(stock, batch.inputs), Work(dense, tokens)),
            Variant("unpadding+sparse", step(lean, batch.inputs), Work(done, tokens)),
        ]
        losses = [float(v.step()) for v in variants]
        assert abs(losses[0] - losses[1]) < 1e-4 * losses[0], f"the losses differ: {losses}"
        rows = compare("step", f"{shape}, {name}", variants, rounds)
        record(rows, "step")
        part = rows[1].speedup / (dense / needed)
        print(
            f"{dense / needed:.2f}x fewer operations are necessary; the speed-up is {part:.2f} times that\n"
        )


def operations(shape: str, batch: Batch) -> tuple[float, float, float]:
    """Of the stock step; those that the loss needs, counting the last layer in full; those that we do."""
    cfg = config(shape)
    rows, width = batch.inputs["input_ids"].shape
    dense = encoder_flops(cfg, [width] * rows) + head_flops(cfg, width * rows)
    needed = encoder_flops(cfg, batch.lengths) + head_flops(cfg, batch.labelled)
    return dense, needed, needed - skipped_flops(cfg, sum(batch.lengths), batch.labelled)


if __name__ == "__main__":
    chosen = options(__doc__, ["hidden 256", "base width"])
    for shape in chosen.shape:
        run(shape, chosen.rounds, chosen.case)
