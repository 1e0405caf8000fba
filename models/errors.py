"""Errors of models."""

import difflib
from collections.abc import Iterable


class ModelError(ValueError):
    """A model that can't be built, saved or loaded as asked."""


def nearest_field(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown field: its nearest neighbour, if there is one."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; nearest: {near[0]}" if near else ""
