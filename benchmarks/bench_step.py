"""How much faster than stock Hugging Face BERT is a training step, and how much of that is work not done?

Same weights, same batch: stock (SDPA on padded rows, logits at every position) against `unpadding` with
`sparse_prediction`. A step is forward, backward and a fused AdamW. Without dropout the losses are equal.
"""

import copy

import torch
from harness import Variant, Work, compare, record
from transformers import BertForMaskedLM
from workloads import (
    SHAPES,
    Batch,
    cases,
    check_losses,
    config,
    encoder_flops,
    head_flops,
    main,
    skipped_flops,
    step,
)

from cadenza.algorithms import apply_sparse_prediction, apply_unpadding


def models(shape: str) -> tuple[BertForMaskedLM, BertForMaskedLM]:
    """Stock BERT, and the same weights after surgery."""
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
        check_losses(variants)
        rows = compare("step", f"{shape}, {name}", variants, rounds)
        record(rows, "step")
        fewer = dense / needed
        part = rows[1].speedup / fewer
        print(f"{fewer:.2f}x fewer operations are necessary; the speed-up is {part:.2f} times that\n")


def operations(shape: str, batch: Batch) -> tuple[float, float, float]:
    """The operations of the stock step, those that the loss needs, and those that the lean step computes.

    The loss needs all layers on the real tokens, and the head on labelled rows. The lean step computes even
    the row-wise part of the last layer only on labelled rows.
    """
    cfg = config(shape)
    rows, width = batch.inputs["input_ids"].shape
    dense = encoder_flops(cfg, [width] * rows) + head_flops(cfg, width * rows)
    needed = encoder_flops(cfg, batch.lengths) + head_flops(cfg, batch.labelled)
    return dense, needed, needed - skipped_flops(cfg, sum(batch.lengths), batch.labelled)


if __name__ == "__main__":
    main(__doc__, run)
