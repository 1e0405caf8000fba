"""Errors of the data."""


class DataError(ValueError):
    """Text that can't be had as asked; one line that says what, where, and what would be right."""
