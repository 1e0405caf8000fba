"""The bytes of an optimizer: what it keeps, and what its step needs for a moment.

Adam keeps two averages of a parameter, in its dtype, and a number of steps (StableAdamW: an epsilon); SGD
with momentum keeps one, and so does Muon of each matrix. On CUDA torch's optimizers update all parameters at
once, and so need a second copy of them all for a moment.
"""

from collections.abc import Sequence

from cadenza.recipe.schema import Optimizer

COUNT = 4  # bytes of the number of steps, a float32


def state_bytes(section: Optimizer, parameters: Sequence[int], matrices: Sequence[int] = ()) -> int:
    """What it keeps for parameters of so many bytes each; `matrices` are those of Muon's among them."""
    if section.name == "sgd":
        return sum(parameters) if section.momentum else 0
    return sum(2 * size + COUNT for size in parameters) - sum(size + COUNT for size in matrices)


def step_bytes(
    section: Optimizer, parameters: Sequence[int], cuda: bool, matrices: Sequence[int] = ()
) -> int:
    """What its step needs besides; of a matrix Muon needs at most three copies if it isn't nearly square."""
    if not parameters:
        return 0
    if section.name == "sgd":
        needed = parameters if section.weight_decay else ()
        return sum(needed) if cuda else max(needed, default=0)
    if matrices:
        return max(2 * max(parameters), 3 * max(matrices))
    return sum(parameters) if cuda and section.name == "adamw" else 2 * max(parameters)
