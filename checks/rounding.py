"""How far two computations of the same may lie apart."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from cadenza.checks.findings import NotCheckable

ROUNDINGS = 8  # a layer rounds about this squared often, and independent errors add up by their squares


def tolerance(model: Any, outputs: Tensor, relative: float | None) -> float:
    """What rounding may change of `outputs` (tokens, width): `relative` or `rounding` of the largest.

    A column that is the same for all tokens, such as the logit of a word that only pads the vocabulary,
    doesn't count.
    """
    name = type(model).__name__
    if bool(outputs.isnan().any()):
        raise NotCheckable(f"{name} returns NaN for random tokens")
    varying = outputs[:, outputs.amax(0) != outputs.amin(0)]
    if not varying.numel():
        raise NotCheckable(f"{name} returns the same for all tokens: nothing could be seen")
    return (rounding(model) if relative is None else relative) * float(varying.abs().max())


def rounding(model: Any) -> float:
    """The relative error that rounding alone may cause: 8 * eps * sqrt(number of layers).

    `eps` is that of the coarsest dtype among the parameters, and float32's at the least: many models compute
    norms, rotations and softmax in float32 whatever their dtype. Where torch multiplies float32 in TF32 or
    bfloat16, it is theirs.
    """
    types = {p.dtype for p in model.parameters() if p.is_floating_point() and p.itemsize > 1}
    products = {"highest": 0.0, "high": 2.0**-10, "medium": 2.0**-7}[torch.get_float32_matmul_precision()]
    eps = max([torch.finfo(dtype).eps for dtype in types | {torch.float32}] + [products])
    return ROUNDINGS * eps * math.sqrt(_layers(model))


def difference(one: Tensor, other: Tensor) -> Tensor:
    """(...) the largest absolute difference along the last dimension; equal infinities don't differ."""
    return torch.where(one == other, 0.0, one - other).abs().amax(-1)


def _layers(model: Any) -> int:
    lists = [len(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    stated = getattr(model.config, "num_hidden_layers", None)
    return max([1, *lists, *([stated] if isinstance(stated, int) else [])])
