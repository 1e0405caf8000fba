"""The optimizers of a model after a surgery: each new parameter gets its place, or its absence is said."""

from cadenza.surgery.optimizers.places import Optimizers, as_tuple, named_parameters, sync

__all__ = ["Optimizers", "as_tuple", "named_parameters", "sync"]
