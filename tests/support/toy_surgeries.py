"""The smallest surgeries on linear layers, for each stage."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import Parameter

from cadenza.surgery import Mixin, Stage, Surgery, mix
from cadenza.surgery.parameters import replace_parameter


class Doubled(Mixin, of="double", stage=Stage.PRECISION):
    def forward(self, x):
        return 2 * super().forward(x)


class Halved(Mixin, of="halve", stage=Stage.PRECISION):
    def forward(self, x):
        return super().forward(x) / 2


@dataclass(repr=False, eq=False)
class Double(Surgery):
    stage = Stage.PRECISION

    def edit(self, site):
        if isinstance(site.module, nn.Linear):
            yield mix(site.module, Doubled)


@dataclass(repr=False, eq=False)
class Halve(Double):
    def edit(self, site):
        if isinstance(site.module, nn.Linear):
            yield mix(site.module, Halved)


@dataclass(repr=False, eq=False)
class Quantize(Double):
    stage = Stage.QUANTIZE


@dataclass(repr=False, eq=False)
class Widen(Surgery):
    """Replaces each Linear's weight, and adds a parameter that no name stood for."""

    stage = Stage.STRUCTURE

    def edit(self, site):
        if isinstance(site.module, nn.Linear):
            site.module.register_parameter("gain", Parameter(torch.ones(1)))
            yield lambda: delattr(site.module, "gain")
            old = site.module.weight
            yield replace_parameter(site.module, old, Parameter(torch.zeros(9, old.shape[1])))
