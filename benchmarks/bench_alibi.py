"""What does unpadding give MosaicBERT over a dense bias, the way its own fallback computes attention?

Both have ALiBi, GLU, a padded vocabulary and sparse prediction; one computes SDPA on padded rows with an
additive (batch, heads, length, length) bias, the other by document.
"""

import copy

import torch
from bert import SHAPES, cases, config, encoder_flops, head_flops, options, skipped_flops, step
from harness import Variant, Work, compare, record
from transformers import BertForMaskedLM

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
        work = []
        for lengths in ([width] * rows, batch.lengths):
            head = head_flops(lean.config, batch.labelled)
            less = skipped_flops(lean.config, sum(lengths), batch.labelled, gated=True)
            work.append(
                Work(encoder_flops(lean.config, lengths, gated=True) + head - less, sum(batch.lengths))
            )
        variants = [
            Variant("dense ALiBi bias", step(dense, batch.inputs), work[0]),
            Variant("by document", step(lean, batch.inputs), work[1]),
        ]
        losses = [float(v.step()) for v in variants]
        assert abs(losses[0] - losses[1]) < 1e-4 * losses[0], f"the losses differ: {losses}"
        record(compare("alibi", f"{shape}, {name}", variants, rounds), "alibi")


if __name__ == "__main__":
    chosen = options(__doc__, ["hidden 256", "base width"])
    for shape in chosen.shape:
        run(shape, chosen.rounds, chosen.case)
