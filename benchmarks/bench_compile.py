"""What `torch.compile` of the layers brings to a training step of stock BERT, and of the same, operated on.

`unpadding` with `sparse_prediction`, as in bench_step. Each model is held against itself with its layers
compiled by inductor.
"""

import copy

import torch
from bench_step import models, operations
from bert import SHAPES, cases, options, step
from gpu_models import compiled
from harness import Variant, Work, compare, record


def run(shape: str, rounds: int, only: str) -> None:
    """The cases of a shape, each model against itself."""
    named = zip(("stock", "lean"), models(shape), strict=True)
    pairs = {name: (model, compiled(copy.deepcopy(model), "inductor")) for name, model in named}
    for case, batch in cases(SHAPES[shape][-1], only).items():
        dense, _, done = operations(shape, batch)
        for (name, pair), flops in zip(pairs.items(), (dense, done), strict=True):
            work = Work(flops, sum(batch.lengths))
            titles = name, f"{name}, compiled"
            variants = [Variant(t, step(m, batch.inputs), work) for t, m in zip(titles, pair, strict=True)]
            record(compare("compile", f"{shape}, {case}", variants, rounds), "compile")


if __name__ == "__main__":
    chosen = options(__doc__, ["hidden 256", "base width"])
    torch._dynamo.config.fail_on_recompile_limit_hit = True  # and not run uncompiled without a word
    for shape in chosen.shape:
        run(shape, chosen.rounds, chosen.case)
