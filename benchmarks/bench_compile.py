"""What does `torch.compile` of the layers bring to a training step of BERT, stock and after surgery?

The surgeries are `unpadding` and `sparse_prediction`, as in bench_step. Each model is compared with a copy
whose layers are compiled by inductor.
"""

import copy

import torch
from bench_step import models, operations
from gpu.models import compiled
from harness import Variant, Work, compare, record
from workloads import SHAPES, cases, main, step


def run(shape: str, rounds: int, only: str) -> None:
    """The cases of a shape, each model against its compiled copy."""
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
    torch._dynamo.config.fail_on_recompile_limit_hit = True  # else it would silently run uncompiled
    main(__doc__, run)
