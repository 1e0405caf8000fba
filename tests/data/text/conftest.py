"""Fixtures of the tests of text."""

from words import asked  # noqa: F401
