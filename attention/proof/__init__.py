"""Proofs that a technique may change the attention of a model, by a few short calls of the model itself."""
