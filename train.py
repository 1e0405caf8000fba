"""Play a recipe: composer train.py RECIPE.yaml [OVERLAY.yaml ...] [key=value ...]

What it trained, as a Hugging Face folder: python train.py export CHECKPOINT FOLDER
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
    """Run the command line; returns the exit code."""
    if arguments[:1] == ["export"]:
        return guarded(lambda: run_export(arguments[1:]))
    options = parse(arguments)
    files = [a for a in options.recipe if a.endswith((".yaml", ".yml")) and "=" not in a]
    pairs = [a for a in options.recipe if a not in files]
    if not files:
        return fail("no recipe: name a .yaml file, such as yamls/mosaicbert.yaml")
    return guarded(lambda: run(files, pairs, dry=options.dry_run))


def guarded(command) -> int:
    """Run `command`; an error that a user can mend is one line and exit code 2."""
    quiet()
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
        description="Play a recipe: train a stock model with the techniques that it lists.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", nargs="*", help="recipe and overlay files, key=value pairs")
    help = "print the resolved recipe, the surgery report and parameter counts; train nothing"
    parser.add_argument("--dry-run", action="store_true", help=help)
    return parser.parse_intermixed_args(arguments)


def run(files: list[str], pairs: list[str], dry: bool) -> int:
    from cadenza.recipe import load, play, resolved

    recipe = load(files, pairs)
    if not dry:
        path = play.play(recipe)
        if path is not None:
            print(f"record: {path}")
        return 0
    print(resolved(recipe))
    reports, counts = play.rehearse(recipe)
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
    parser.add_argument("folder", help="made; it must not hold anything yet")
    help = "read it although torch before 2.10 can be made to run code by a file; your own file, that is"
    parser.add_argument("--trust", action="store_true", help=help)
    options = parser.parse_args(arguments)
    from cadenza.models import export

    print(f"exported: {export(options.checkpoint, options.folder, options.trust)}")
    return 0


def quiet() -> None:
    """Keep what libraries say to themselves off the screen; our own warnings are one line each."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", message="Cannot split tensor of length")  # the last batch is smaller
    from transformers.utils import logging

    logging.set_verbosity_error()


def fail(message: str) -> int:
    """Print one line and give exit code 2."""
    if os.environ.get("RANK", "0") != "0":
        time.sleep(20)  # the launcher ends all with the first to fail: let rank 0 speak, if it fails as well
    print("error: " + " ".join(message.split()), file=sys.stderr, flush=True)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
