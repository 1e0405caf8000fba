"""Errors of the command line: one line, exit code 2."""

import difflib
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable

WRONG_INPUT, INTERRUPTED = 2, 130


class CommandError(ValueError):
    """An argument of a command is wrong; the message says what would be right."""


def guarded(command: Callable[[], int]) -> int:
    """The exit code of `command`; an error that the user can correct is one line and exit code 2.

    Such an error has a class of Cadenza's own. Any other one is a fault of the program, with its traceback.
    """
    quiet()
    try:
        return command()
    except KeyboardInterrupt as error:  # a run says where it stopped, and with which code
        code = getattr(error, "code", INTERRUPTED)
        return fail(f"stopped: {error}".removesuffix(": "), code) if first_rank() else code
    except Exception as error:
        if not type(error).__module__.startswith("cadenza."):
            raise
        return fail(str(error))


def quiet() -> None:
    """Hide the libraries' warnings about themselves; print all others as one line each."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # of kernels for CPUs that it doesn't bring
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", message="Cannot split tensor of length")  # the last batch is smaller


def first_rank() -> bool:
    """Whether this process is the one that prints."""
    return os.environ.get("RANK", "0") == "0"


def fail(message: str, code: int = WRONG_INPUT) -> int:
    """Print one line and return the exit code."""
    if not first_rank():
        time.sleep(20)  # the launcher stops all ranks at the first failure: let rank 0 print its error first
    kind = "error: " if code == WRONG_INPUT else ""
    print(kind + " ".join(message.split()), file=sys.stderr, flush=True)
    return code


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that `name` is a slip of, or all known ones."""
    names = list(known)
    found = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {found[0]!r}?" if found else f"known: {', '.join(names)}"
