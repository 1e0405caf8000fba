"""Errors of a recipe."""

import difflib
from collections.abc import Iterable


class RecipeError(ValueError):
    """A recipe that can't be run; the message names the file, the key and what would be right."""


class TrainingError(RuntimeError):
    """Training that can't continue; the message names the batch and the reason."""


class Stopped(KeyboardInterrupt):
    """A run that was told to stop; the message names its last checkpoint.

    Args:
        code: the exit code, 128 and the number of the signal.
    """

    def __init__(self, message: str, code: int = 130) -> None:
        super().__init__(message)
        self.code = code


def nearest(name: str, valid: Iterable[str]) -> str:
    """The hint for a misspelt name: the most similar valid name, or all valid names if none is similar."""
    valid = sorted(valid)
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"valid: {', '.join(valid)}"
