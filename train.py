"""Train by a recipe: composer train.py RECIPE.yaml [OVERLAY.yaml ...] [key=value ...]

Export a checkpoint as a Hugging Face folder: python train.py export CHECKPOINT FOLDER
"""

import argparse
import os
import sys
import time
import warnings

EPILOG = """\
examples:
  composer train.py yamls/mosaicbert.yaml yamls/scale/cpu.yaml
  composer train.py yamls/mosaicbert.yaml --dry-run train.max_duration=10ba algorithms.glu=false
  composer -n 8 train.py yamls/mosaicbert.yaml yamls/scale/8xgpu.yaml name=mosaicbert-seed1 seed=1
  python train.py export runs/mosaicbert-base/checkpoints/latest-rank0.pt my-mosaicbert

Later files and pairs override earlier ones. An error in a recipe is one line and exit code 2.
"""


def main(arguments: list[str]) -> int:
    """Run the command line and return the exit code."""
    if arguments[:1] == ["export"]:
        return guarded(lambda: run_export(arguments[1:]))
    options = parse(arguments)
    files = [a for a in options.recipe if a.endswith((".yaml", ".yml")) and "=" not in a]
    pairs = [a for a in options.recipe if a not in files]
    if not files:
        return fail("no recipe: name a .yaml file, such as yamls/mosaicbert.yaml")
    return guarded(lambda: run(files, pairs, dry=options.dry_run))


def guarded(command) -> int:
    """Run `command`; an error that the user can correct is printed as one line, with exit code 2."""
    quiet()  # before the imports, which warn; they take seconds, so that --help doesn't wait for them
    from cadenza.data import DataError
    from cadenza.models import ModelError
    from cadenza.recipe import RecipeError, TrainingError
    from cadenza.surgery import SurgeryError

    try:
        return command()
    except (RecipeError, DataError, ModelError, SurgeryError, TrainingError) as error:
        return fail(str(error))


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="composer train.py",
        description="Train by a recipe: a stock model with the techniques that it lists.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", nargs="*", help="recipe and overlay files, key=value pairs")
    help = "print the resolved recipe, the surgery report and parameter counts; train nothing"
    parser.add_argument("--dry-run", action="store_true", help=help)
    return parser.parse_intermixed_args(arguments)


def run(files: list[str], pairs: list[str], dry: bool) -> int:
    from cadenza.recipe import load, resolved
    from cadenza.recipe.run import dry_run, train

    recipe = load(files, pairs)
    if not dry:
        path = train(recipe)
        if path is not None:
            print(f"record: {path}")
        return 0
    print(resolved(recipe))
    reports, counts = dry_run(recipe)
    for report in reports:
        print(report)
    print(f"parameters: {counts['stock']:,} stock, {counts['after_surgery']:,} after surgery")
    return 0


def run_export(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="train.py export",
        description="Write the model of a Composer checkpoint to a folder that `AutoModel` reads.",
    )
    parser.add_argument("checkpoint", help="a .pt file under runs/NAME/checkpoints")
    parser.add_argument("folder", help="created; it must be empty or missing")
    help = "read your own file even before torch 2.10, which can run code that is in a file"
    parser.add_argument("--trust", action="store_true", help=help)
    options = parser.parse_args(arguments)
    from cadenza.models import export

    print(f"exported: {export(options.checkpoint, options.folder, options.trust)}")
    return 0


def quiet() -> None:
    """Hide the libraries' warnings about themselves; print all others as one line each."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", message="Cannot split tensor of length")  # the last batch is smaller
    from transformers.utils import logging

    logging.set_verbosity_error()


def fail(message: str) -> int:
    """Print one line and return exit code 2."""
    if os.environ.get("RANK", "0") != "0":
        time.sleep(20)  # the launcher stops all ranks at the first failure: let rank 0 print its error first
    print("error: " + " ".join(message.split()), file=sys.stderr, flush=True)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
