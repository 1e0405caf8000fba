"""`cadenza prepare`: make a recipe's token ids, so that a run finds them on the disk."""

import argparse
from pathlib import Path
from typing import Any

from cadenza.cli.errors import CommandError
from cadenza.cli.packaged import files_and_pairs


def run(arguments: list[str]) -> int:
    """Prepare, and print what was made."""
    parser = argparse.ArgumentParser(
        prog="cadenza prepare",
        description="Tokenize a recipe's text once and keep the token ids on disk. A run does so by itself "
        "at its first start. Stopped, it goes on where it was at its next start.",
    )
    help = "a recipe and overlays, files or packaged; key=value pairs"
    parser.add_argument("recipe", nargs="+", help=help)
    files, pairs = files_and_pairs(parser.parse_args(arguments).recipe)
    if not files:
        raise CommandError("prepare: no recipe: name a .yaml file or a packaged recipe, such as mosaicbert")
    from cadenza.recipe import load
    from cadenza.recipe.continuing.surgeries import started
    from cadenza.recipe.schema import Recipe

    recipe = load(files, pairs)
    if not isinstance(recipe, Recipe):
        right = "this command prepares the text of language models; other recipes need none of it"
        raise CommandError(f"prepare: model.objective is {recipe.model.objective}; {right}")
    prepare(started(recipe))
    return 0


def prepare(recipe: Any) -> None:
    """Prepare the text of `recipe`."""
    from cadenza.data.text import loader
    from cadenza.recipe.run import task_of

    found = loader.prepare(recipe.data, task_of(recipe).tokenizer, recipe.model.objective == "causal_lm")
    for purpose, parts in found.items():
        for part in parts:
            counts = part.counts
            share = f"{counts.unknown / max(counts.tokens, 1):.2%} unknown to the tokenizer"
            print(
                f"{purpose}: {part.documents:,} documents, {len(part.rows):,} rows of "
                f"{part.rows.lengths.sum():,} tokens ({share})"
            )
    for folder in sorted({part.folder for parts in found.values() for part in parts}):
        print(f"{folder}: {size(folder) / 1e6:,.1f} MB")


def size(folder: Path) -> int:
    """The bytes of the files in `folder`."""
    return sum(path.stat().st_size for path in folder.iterdir())
