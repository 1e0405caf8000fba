"""Errors of models."""


class ModelError(ValueError):
    """A model that can't be built, saved or loaded as asked."""
