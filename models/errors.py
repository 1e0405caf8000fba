"""Errors of models."""

import difflib
from collections.abc import Iterable

from cadenza.data.errors import one_line
from cadenza.surgery.checkpoint import unsafe_pickles


class ModelError(ValueError):
    """A model can't be built, saved or loaded."""


def nearest_field(name: str, known: Iterable[str]) -> str:
    """The end of a message about the unknown field `name`: the most similar name in `known`, if any."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; nearest: {near[0]}" if near else ""


def in_short(error: Exception) -> str:
    """`error` in one line; if safetensors are missing, with the reason why no other format is read."""
    text = one_line(error, 300)
    reason = unsafe_pickles() if "safetensors" in text else None
    return f"{text}; no other format is read here: {reason}" if reason else text
