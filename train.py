"""Train by a recipe: composer train.py RECIPE.yaml [OVERLAY.yaml ...] [key=value ...]

The same as `cadenza train`. `python train.py export CHECKPOINT FOLDER` is `cadenza export`.
"""

import sys

from cadenza.cli import main as command


def main(arguments: list[str]) -> int:
    """Run the command line and return the exit code."""
    return command.main(arguments if arguments[:1] == ["export"] else ["train", *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
