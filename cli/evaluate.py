"""`cadenza evaluate`: the score of a run, a checkpoint or a Hugging Face folder on evaluation data.

1. `sources` finds the recipe: the one that is named, or else the run's own.
2. `changes` lets it load what is scored, and write nothing.
3. `cadenza.recipe.run.evaluate` builds model and data as for training, and evaluates.
"""

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

from cadenza.cli.errors import CommandError
from cadenza.cli.packaged import files_and_pairs

NAME = "name a recipe, whose data it is scored on"
NOT_SAVED = ["train.save_interval=null", "train.autoresume=false", "train.progress_bar=false"]


def run(arguments: list[str]) -> int:
    """Print the score."""
    parser = argparse.ArgumentParser(
        prog="cadenza evaluate",
        description="Score a run, a checkpoint or a Hugging Face folder on a recipe's evaluation data.",
    )
    parser.add_argument("scored", type=Path, help="runs/NAME, a .pt file, or a folder with config.json")
    help = "recipe and overlays, files or packaged (default: the run's own); key=value pairs"
    parser.add_argument("recipe", nargs="*", help=help)
    options = parser.parse_args(arguments)
    scored = options.scored.expanduser()
    named, pairs = files_and_pairs(options.recipe)
    files = named or [own_recipe(scored)]
    if not named:  # it holds all defaults, also of keys that this run has no use for
        warnings.filterwarnings("ignore", message=r".*recipe\.yaml: \S+ has no effect")
    from cadenza.recipe import load
    from cadenza.recipe.run import evaluate

    recipe = load(files, [*pairs, *changes(scored, load(files, pairs))])
    summary, found = evaluate(recipe)
    print(f"{scored}: {summary}")
    print(json.dumps(found))
    return 0


def weights_of(scored: Path) -> Path:
    """The checkpoint or the Hugging Face folder: itself, or that of a run.

    Raises:
        CommandError: there is none.
    """
    from cadenza.models.pretrained import held_in

    found = held_in(scored)
    if found is None or not found.exists():
        missing = scored if scored.suffix == ".pt" else scored / "checkpoints" / "latest-rank0.pt"
        right = "name a run's folder, a .pt file, or a folder with config.json"
        raise CommandError(f"evaluate: there is no {missing}; {right}")
    return found


def own_recipe(scored: Path) -> str:
    """The file of the recipe that a run kept."""
    folder = scored.resolve().parent.parent if scored.is_file() else scored
    kept = folder / "recipe.yaml"
    if kept.is_file():
        return str(kept)
    if (scored / "config.json").is_file():
        raise CommandError(f"evaluate: {scored} is a model, not a run: {NAME}")
    weights_of(scored)
    raise CommandError(f"evaluate: {folder} has no recipe.yaml: {NAME}")


def changes(scored: Path, recipe: Any) -> list[str]:
    """Pairs that let `recipe` load what is scored, and write nothing."""
    found = weights_of(scored)
    if found.is_file():
        return [f"train.load_path={found}", "train.load_weights_only=true", *NOT_SAVED]
    if not hasattr(recipe, "tokenizer"):
        right = "name the run or its checkpoint"
        raise CommandError(f"evaluate: a recipe for images can't load the folder {scored}; {right}")
    without = [
        f"algorithms.{name}=false" for name in recipe.algorithms
    ]  # the folder holds what is left of them
    loads = [f"model.pretrained={found}", f"tokenizer.name={found}", "model.config=null", *without]
    loads.append("tokenizer.new_tokens=null")  # the folder's tokenizer has them
    return [*loads, "train.load_path=null", *NOT_SAVED]
