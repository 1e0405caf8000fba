"""Fixtures of the tests of images."""

from image_loaders import asked, idx  # noqa: F401
