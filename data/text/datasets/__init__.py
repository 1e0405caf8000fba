"""Sequences, packed rows and windows, from token ids: what a batch is made of."""
