"""A fine-tuning step on a recipe's batches: stock, with `unpadding`, and with examples packed into rows.

    OMP_NUM_THREADS=1 PYTHONPATH=benchmarks python benchmarks/cpu/bench_finetune.py model.pretrained=FOLDER \
        data.source=FILE.csv [--case NAME]

A step is forward, backward and AdamW, in float32, on the same batches for each way. Before it is timed, all
ways predict for the same batches without dropout: the largest difference of their logits is printed.
"""

import copy
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from harness import Variant, Work, append, compare, parser, table

from cadenza.algorithms import apply_sequence_packing, apply_unpadding
from cadenza.data.labelled.packing import pack
from cadenza.recipe import load
from cadenza.recipe.run import task_of

RECIPE = str(Path(__file__).parents[2] / "yamls/finetune.yaml")
BATCHES = 8
TECHNIQUES = {"stock": None, "unpadding": apply_unpadding, "sequence_packing": apply_sequence_packing}
Batch = dict[str, Any]


def main() -> None:
    command = parser(__doc__, rounds=4 * BATCHES)
    command.add_argument("pairs", nargs="+", help="key=value pairs of yamls/finetune.yaml")
    command.add_argument("--case", default="finetune", help="the name in the results")
    options = command.parse_args()
    task: Any = task_of(load([RECIPE], [*options.pairs, "algorithms=null", "train.precision=fp32"]))
    stock, loader = task.model().model, task.data()[0].dataloader
    batches = list(itertools.islice(loader, BATCHES))
    ways = {name: way(stock, apply) for name, apply in TECHNIQUES.items()}
    for name, model in ways.items():
        found = (difference(ways["stock"], model, batch, name == "sequence_packing") for batch in batches)
        print(f"{name}: logits differ from stock by {max(found):.1e} at most")
    tokens = sum(int(batch["attention_mask"].sum()) for batch in batches) // BATCHES
    variants = [
        Variant(name, step(model, inputs(batches, name == "sequence_packing")), Work(0.0, tokens))
        for name, model in ways.items()
    ]
    rows = compare("finetune", options.case, variants, options.rounds)
    append(
        [{k: v for k, v in vars(row).items() if k not in ("gflop", "rate", "share")} for row in rows],
        "finetune",
    )
    print(table(rows))


def way(stock: Any, apply: Any) -> Any:
    """A copy of `stock` after a technique."""
    model = copy.deepcopy(stock)
    if apply is not None:
        apply(model)
    return model


def packed(batch: Batch, packs: bool) -> Batch:
    """`batch`, in rows of several examples if `packs`; its draws tell the order."""
    return pack(dict(batch), capacity=batch["input_ids"].shape[1]) if packs else dict(batch)


@torch.no_grad()
def difference(stock: Any, model: Any, batch: Batch, packs: bool) -> float:
    """The largest difference of two models' logits on `batch`, without dropout."""
    logits = []
    for each, given in ((stock, packed(batch, False)), (model, packed(batch, packs))):
        order = given.pop("draw").argsort()
        given.pop("labels")
        logits.append(each.eval()(**given).logits[order])
    return float((logits[0] - logits[1]).abs().max())


def inputs(batches: list[Batch], packs: bool) -> Iterator[Batch]:
    """The batches, again and again, without what no model reads."""
    for batch in itertools.cycle(batches):
        yield {name: value for name, value in packed(batch, packs).items() if name != "draw"}


def step(model: Any, given: Iterator[Batch]) -> Callable[[], object]:
    """A training step on the next batch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def run() -> None:
        model.train()(**next(given)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


if __name__ == "__main__":
    main()
