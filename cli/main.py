"""The `cadenza` command line.

1. `COMMANDS` names the commands, each a module of this folder with a function `run(arguments) -> exit code`.
2. `main` imports the module of the command that is asked for, and no other: `--help` takes no seconds.
3. `guarded` turns each error that the user can correct into one line and exit code 2.
"""

import importlib
import os
import sys

from cadenza.cli.errors import CommandError, guarded, nearest

COMMANDS = {
    "recipes": "list the recipes and overlays that are packaged",
    "init": "copy a packaged recipe into a folder, to edit it",
    "keys": "print every key of a recipe with its type, default, range and meaning",
    "train": "train by a recipe, or show with --dry-run what it would do",
    "prepare": "tokenize a recipe's text once and keep the token ids",
    "data": "print and draw what a recipe's training text holds",
    "evaluate": "score a run, a checkpoint or a Hugging Face folder on a recipe's evaluation data",
    "export": "write the model of a checkpoint to a folder",
    "report": "draw and tabulate the loss of runs",
    "env": "print what a bug report needs",
}
EXAMPLES = """\
examples:
  cadenza recipes
  cadenza train mosaicbert scale/cpu train.max_duration=100ba
  cadenza init mosaicbert mine && cadenza train mine/mosaicbert.yaml data.source=text/*.jsonl
  cadenza evaluate runs/mosaicbert-base
  cadenza export runs/mosaicbert-base/checkpoints/latest-rank0.pt my-mosaicbert

cadenza COMMAND --help says more of a command. An error in the input is one line and exit code 2."""


def main(arguments: list[str]) -> int:
    """Run the command line and return the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(help_text())
        return 0
    return guarded(lambda: _run(*arguments))


def _run(name: str, *arguments: str) -> int:
    if name not in COMMANDS:
        raise CommandError(f"cadenza has no command {name!r}; {nearest(name, COMMANDS)}")
    return importlib.import_module(f"cadenza.cli.{name}").run(list(arguments))


def help_text() -> str:
    """What `cadenza --help` prints."""
    listed = "\n".join(f"  {name:<10} {meaning}" for name, meaning in COMMANDS.items())
    return f"usage: cadenza COMMAND ...\n\ncommands:\n{listed}\n\n{EXAMPLES}"


def entry() -> None:
    """The installed command."""
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # what reads the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)
