"""Errors of a recipe."""

import difflib
from collections.abc import Iterable


class RecipeError(ValueError):
    """A recipe that can't be played; the message names file, key and what would be right."""


class TrainingError(RuntimeError):
    """Training that can't go on; the message says at which batch, and why."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """The hint for a misspelt name: its nearest neighbour, or else all valid names."""
    valid = sorted(valid)
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"valid: {', '.join(valid)}"
