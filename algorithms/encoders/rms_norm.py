"""RMS norms: layer norms that neither subtract the mean nor add a bias."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from cadenza.surgery.engine import Site, Surgery
from cadenza.surgery.optimizers import Optimizers
from cadenza.surgery.parameters import had_parameter, take_parameter
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Mixin, Stage, Undo, mix, stock_class

__all__ = ["RMSNorm", "apply_rms_norm"]


@dataclass(repr=False, eq=False)
class RMSNorm(Surgery):
    """Turns each LayerNorm into `weight * x / sqrt(mean(x^2) + eps)`.

    RMSNorm (Zhang and Sennrich, arXiv 1910.07467, equation 4), as in NeoBERT (arXiv 2502.19587). The weight
    and `eps` stay; the bias goes.

    Use it when pretraining from scratch, or to compare with models that have it: it does less work than a
    LayerNorm. A pretrained model computes something else, and has to be trained again.

    Works on any model with `nn.LayerNorm`.
    """

    stage = Stage.STRUCTURE

    def edit(self, site: Site) -> Iterator[Undo]:
        if stock_class(site.module) is nn.LayerNorm:
            if had_parameter(site.module, "bias"):
                yield take_parameter(site.module, "bias")
            yield mix(site.module, NormalizesByRMS)


def apply_rms_norm(model: nn.Module, *, optimizers: Optimizers = None) -> Report:
    """Turn the layer norms of `model` into RMS norms, in place; see `RMSNorm`.

    Raises:
        NoEffect: the model contains no `nn.LayerNorm`.
    """
    return RMSNorm().operate(model, optimizers)


class NormalizesByRMS(Mixin, of="rms_norm", stage=Stage.STRUCTURE):
    """A LayerNorm that divides by the root of the mean square."""

    by_rms = True  # `low_precision_norm` reads it

    def forward(self, input: Tensor) -> Tensor:
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)
