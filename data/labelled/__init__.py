"""Labelled text: examples of one or two texts, with a class or a number each."""
