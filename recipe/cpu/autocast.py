"""Autocast on a CPU. Composer has none, and its Trainer refuses any precision but fp32 there."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from composer.core import Callback, Precision, State
from composer.loggers import Logger

from cadenza.recipe.cpu.rows import RoundedRows
from cadenza.surgery.retype import Mixin, Stage, mix


@contextmanager
def bfloat16() -> Iterator[None]:
    """The context of amp_bf16 on a CPU."""
    with torch.autocast("cpu", torch.bfloat16), RoundedRows():
        yield


class Autocast(Mixin, of="amp_bf16 on a CPU", stage=Stage.QUANTIZE):
    """A ComposerModel that does in bfloat16 autocast what Composer does in its precision context."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with bfloat16():
            return super().forward(*args, **kwargs)

    def loss(self, *args: Any, **kwargs: Any) -> Any:
        """The loss, in autocast."""
        with bfloat16():
            return super().loss(*args, **kwargs)

    def eval_forward(self, *args: Any, **kwargs: Any) -> Any:
        """The outputs of an evaluation, in autocast."""
        with bfloat16():
            return super().eval_forward(*args, **kwargs)

    def update_metric(self, *args: Any, **kwargs: Any) -> None:
        """The update of a metric, in autocast, which takes cross-entropies in float32."""
        with bfloat16():
            super().update_metric(*args, **kwargs)


class CpuAutocast(Callback):
    """Trains and evaluates in amp_bf16 on a CPU; weights, gradients and the optimizer stay float32.

    The Trainer is built with fp32. Callbacks run before algorithms in Composer's `Event.INIT`, so techniques
    and checkpoints see `amp_bf16`.
    """

    def init(self, state: State, logger: Logger) -> None:
        state.precision = Precision.AMP_BF16
        mix(state.model, Autocast)
