"""`cadenza data`: look at a recipe's training text before it is trained on.

1. `cadenza.recipe.load` reads the recipe; its tokenizer is loaded, or trained as for a run.
2. `facts` counts the training documents; of a stream the first ones.
3. What was counted is printed, with examples as the model sees them, and the lengths are drawn.

Of labelled text all examples are read, those for evaluation too.
"""

import argparse
from itertools import islice
from pathlib import Path
from typing import Any

from cadenza.cli.errors import CommandError
from cadenza.cli.packaged import files_and_pairs

STREAMED = 10_000  # documents of a stream that are looked at, unless the user says how many
EXAMPLES, FIRST = 3, 100  # rows that are shown, and the documents that they are made of


def run(arguments: list[str]) -> int:
    """Print and draw."""
    parser = argparse.ArgumentParser(
        prog="cadenza data", description="Print and draw what a recipe's training text holds."
    )
    help = "a recipe and overlays, files or packaged; key=value pairs"
    parser.add_argument("recipe", nargs="+", help=help)
    help = f"look at the first N documents (default: all; of a stream {STREAMED:,})"
    parser.add_argument("--documents", type=int, metavar="N", help=help)
    help = "the plot's file (default: data.png in the run's folder)"
    parser.add_argument("-o", "--output", type=Path, help=help)
    options = parser.parse_intermixed_args(arguments)
    if options.documents is not None and options.documents < 1:
        raise CommandError(f"data: --documents is {options.documents}; it must be above zero")
    files, pairs = files_and_pairs(options.recipe)
    if not files:
        raise CommandError("data: no recipe: name a .yaml file or a packaged recipe, such as mosaicbert")
    from cadenza.recipe import load
    from cadenza.recipe.continuing.surgeries import started
    from cadenza.recipe.schema import ClassificationRecipe

    recipe, plot = load(files, pairs), options.output
    if not hasattr(recipe, "tokenizer"):
        raise CommandError("data: the recipe is for images; this command looks at text")
    recipe = started(recipe)
    if isinstance(recipe, ClassificationRecipe):
        if options.documents is not None:
            raise CommandError("data: --documents is for text without labels; name data.train_examples")
        look_at_labelled(recipe, plot or recipe.folder / "data.png")
    else:
        look(recipe, options.documents, plot or recipe.folder / "data.png")
    return 0


def look(recipe: Any, most: int | None, plot: Path) -> None:
    """Count, print and draw the training text of `recipe`."""
    from cadenza.data.survey import examples, facts, histogram, lines
    from cadenza.data.text.sources import each_document, streamed
    from cadenza.recipe.run import task_of

    cfg, causal = recipe.data, recipe.model.objective == "causal_lm"
    tokenizer = task_of(recipe).tokenizer
    found = each_document(cfg, train=True, seed=recipe.seed)
    limit = most if most is not None or not streamed(cfg, True) else STREAMED
    counted = facts.facts(islice(iter(found), limit), tokenizer, cfg, causal)
    print("\n".join(lines.lines(counted, tokenizer, cfg, partly=limit is not None)))
    batch = examples.batch(counted.filled[:FIRST], tokenizer, recipe, EXAMPLES)
    for number, row in enumerate(examples.examples(batch, tokenizer, causal) if batch else [], 1):
        print(f"example {number}: {row}")
    histogram.draw(counted, lines.title(cfg), plot)
    print(f"plot: {plot}")


def look_at_labelled(recipe: Any, plot: Path) -> None:
    """Count, print and draw the labelled text of `recipe`."""
    from cadenza.data.survey import labelled
    from cadenza.recipe.run import task_of

    task = task_of(recipe)
    sets, tokenizer, cfg = task.sets, task.tokenizer, recipe.data
    data: Any = getattr(task.data()[0].dataloader, "dataset", None)
    print("\n".join(labelled.lines(sets, data, tokenizer, cfg, recipe.train.global_batch_size)))
    for number, example in enumerate(labelled.examples(data, sets.labels, tokenizer, EXAMPLES), 1):
        print(f"example {number}: {example}")
    labelled.draw(data, cfg, plot)
    print(f"plot: {plot}")
