"""Weights in few bits: formats, and the linear layer that holds them."""
