"""Errors of models."""

import difflib
from collections.abc import Iterable


class ModelError(ValueError):
    """A model can't be built, saved or loaded."""


def nearest_field(name: str, known: Iterable[str]) -> str:
    """The end of a message about the unknown field `name`: the most similar name in `known`, if any."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; nearest: {near[0]}" if near else ""
