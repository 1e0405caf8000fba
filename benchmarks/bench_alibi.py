"""What does unpadding give MosaicBERT over a dense ALiBi bias, which MosaicBERT's own fallback uses?

Both variants have ALiBi, GLU, a padded vocabulary and sparse prediction. One computes SDPA on padded rows
with an additive (batch, heads, length, length) bias; the other computes attention by document.
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

from cadenza.algorithms import (
    apply_alibi,
    apply_flash_attention,
    apply_glu,
    apply_sparse_prediction,
    apply_unpadding,
    apply_vocab_padding,
)


def run(shape: str, rounds: int, only: str) -> None:
    """The cases of a shape."""
    torch.manual_seed(0)
    dense = BertForMaskedLM(config(shape)).train()
    for apply in (apply_glu, apply_vocab_padding, apply_alibi, apply_sparse_prediction):
        apply(dense)
    lean = copy.deepcopy(dense)
    apply_unpadding(lean)
    apply_flash_attention(lean, "sdpa")
    for name, batch in cases(SHAPES[shape][-1], only).items():
        rows, width = batch.inputs["input_ids"].shape
        variants = [
            Variant("dense ALiBi bias", step(dense, batch.inputs), work(lean.config, batch, [width] * rows)),
            Variant("by document", step(lean, batch.inputs), work(lean.config, batch, batch.lengths)),
        ]
        check_losses(variants)
        record(compare("alibi", f"{shape}, {name}", variants, rounds), "alibi")


def work(config, batch: Batch, lengths: list[int]) -> Work:
    """The work of a step whose attention runs on rows of `lengths`."""
    skipped = skipped_flops(config, sum(lengths), batch.labelled, gated=True)
    flops = encoder_flops(config, lengths, gated=True) + head_flops(config, batch.labelled) - skipped
    return Work(flops, sum(batch.lengths))


if __name__ == "__main__":
    main(__doc__, run)
