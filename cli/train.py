"""`cadenza train`: what `composer train.py` does, for files and packaged recipes."""

import argparse
import io
import logging
import sys
from contextlib import redirect_stdout

from cadenza.cli.errors import CommandError
from cadenza.cli.packaged import files_and_pairs

EPILOG = """\
examples:
  cadenza train mosaicbert scale/cpu
  cadenza train mine.yaml --dry-run train.max_duration=10ba algorithms.glu=false
  cadenza train -n 8 mosaicbert scale/8xgpu name=mosaicbert-seed1 seed=1

Later files and pairs override earlier ones. `cadenza recipes` lists packaged names, `cadenza keys` the keys.
"""


def run(arguments: list[str]) -> int:
    """Train, show what would be trained, or start a process for each device."""
    options = parse(arguments)
    if options.devices is not None and options.devices < 1:
        raise CommandError(f"train: -n is {options.devices}; it must be the number of devices, 1 or more")
    if options.device_memory is not None:
        check_memory(options)
    if options.devices is not None and not options.dry_run:
        return launched(options.devices, without_devices(arguments))
    files, pairs = files_and_pairs(options.recipe)
    if not files:
        raise CommandError("no recipe: name a .yaml file or a packaged recipe, such as mosaicbert")
    return show(files, pairs, options) if options.dry_run else train(files, pairs)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        prog="cadenza train",
        description="Train by a recipe: a stock model with the techniques that it lists.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", nargs="*", help="recipes and overlays, files or packaged; key=value pairs")
    help = "print the resolved recipe, the memory that a device needs, the surgery report and parameter "
    help += "counts; train nothing"
    parser.add_argument("--dry-run", action="store_true", help=help)
    help = "start so many processes by Composer's launcher, one for each device; with --dry-run none is "
    help += "started, and the memory is that of one of so many devices"
    parser.add_argument("-n", dest="devices", type=int, metavar="DEVICES", help=help)
    help = "with --dry-run: the GiB of a CUDA device; the memory is that of such devices, here or not"
    parser.add_argument("--device-memory", type=float, metavar="GIB", help=help)
    return parser.parse_intermixed_args(arguments)


def check_memory(options: argparse.Namespace) -> None:
    """Raise `CommandError` for a device's memory that means nothing."""
    given = f"train: --device-memory is {options.device_memory:g}"
    if not 0 < options.device_memory < float("inf"):
        raise CommandError(f"{given}; it must be the GiB of a device, above zero")
    if not options.dry_run:
        raise CommandError(f"{given}; it is compared by --dry-run alone: add that, or leave it out")


def without_devices(arguments: list[str]) -> list[str]:
    """The arguments without `-n`."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-n", type=int)
    return parser.parse_known_args(arguments)[1]


def launched(devices: int, arguments: list[str]) -> int:
    """Run the command by Composer's launcher; returns the exit code.

    What the launcher says of an error that rank 0 has told in a line is not printed.
    """
    from composer.cli import launcher

    logging.getLogger(launcher.__name__).disabled = True
    sys.argv = ["composer", "-n", str(devices), "-m", "cadenza", "train", *arguments]
    with redirect_stdout(io.StringIO()) as said:
        code = launcher.main()
    if code not in (0, 2):
        print(said.getvalue(), end="")
    return code


def train(files: list[str], pairs: list[str]) -> int:
    """Train by the recipe."""
    from cadenza.recipe import load
    from cadenza.recipe.run import train

    if (path := train(load(files, pairs))) is not None:
        print(f"record: {path}")
    return 0


def show(files: list[str], pairs: list[str], options: argparse.Namespace) -> int:
    """Print what the recipe would do; the memory comes first, since it needs neither data nor weights."""
    from cadenza.recipe import load, resolved
    from cadenza.recipe.memory.shown import refuse_too_large, show_memory
    from cadenza.recipe.run import dry_run

    recipe = load(files, pairs)
    print(resolved(recipe))
    found = show_memory(recipe, options.devices, options.device_memory)
    refuse_too_large(found)
    reports, counts = dry_run(recipe)
    for report in reports:
        print(report)
    print(f"parameters: {counts['stock']:,} stock, {counts['after_surgery']:,} after surgery")
    return 0
