"""Techniques that train a decoder for longer sequences than before."""
