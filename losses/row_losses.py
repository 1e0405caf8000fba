"""The losses of rows of logits, and their gradient, which overwrites the logits."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cadenza.losses.cross_entropy import CHUNK


@dataclass(frozen=True)
class LogitMap:
    """What a model does to the numbers of its output layer: `softcap * tanh(scale * x / softcap)`.

    Args:
        scale: a factor.
        softcap: a bound of the logits' size; None: `scale * x`.
    """

    scale: float = 1.0
    softcap: float | None = None

    def __call__(self, numbers: Tensor) -> Tensor:
        """The logits, as a new tensor."""
        logits = numbers * self.scale
        return logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap

    def write(self, numbers: Tensor) -> Tensor | None:
        """Turn `numbers` into logits in place; return the derivative, None if it is 1."""
        if self.softcap is None:
            return None if self.scale == 1 else numbers.mul_(self.scale).new_full((1, 1), self.scale)
        numbers.mul_(self.scale / self.softcap).tanh_()
        slope = (1 - numbers.square()).mul_(self.scale)
        numbers.mul_(self.softcap)
        return slope


@dataclass(frozen=True)
class Terms:
    """The loss of a row, from its logits.

    Args:
        map: from the numbers of the output layer to logits.
        label_smoothing: the share of the target that is spread over all words.
        z_loss: the weight of the squared logarithm of the softmax's denominator (arXiv 2204.02311).
    """

    map: LogitMap = field(default_factory=LogitMap)
    label_smoothing: float = 0.0
    z_loss: float = 0.0

    def __call__(self, numbers: Tensor, labels: Tensor) -> Tensor:
        """(rows,) the losses, differentiable any number of times."""
        logits = self.map(numbers)
        log_total = logits.logsumexp(1)
        target = logits.gather(1, labels[:, None])[:, 0]
        if self.label_smoothing:
            target = torch.lerp(target, logits.mean(1), self.label_smoothing)
        return log_total - target + self.z_loss * log_total.square()


def differentiate_(
    numbers: Tensor, labels: Tensor, terms: Terms, rates: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Compute losses, and write the gradient of `(rates * losses).sum()` into `numbers`.

    Args:
        numbers: (rows, words) of the output layer, float32 or float64; they are overwritten.
        labels: (rows,).
        rates: (rows,) in the dtype of `numbers`; None: no gradient is wanted.

    Returns:
        The losses, and the plain cross-entropies without smoothing and z-loss, each (rows,).
    """
    parts = [
        _differentiate(block, labels[place, None], terms, None if rates is None else rates[place, None])
        for place, block in _blocks(numbers)
    ]
    losses, plain = (torch.cat(each)[:, 0] for each in zip(*parts, strict=True))
    return losses, plain


def _blocks(numbers: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Some rows at a time; on a CPU they fit its cache."""
    rows = max(1, CHUNK.get(numbers.device.type, CHUNK["cpu"]) // numbers.shape[1])
    for start in range(0, len(numbers), rows):
        place = slice(start, start + rows)
        yield place, numbers[place]


def _differentiate(z: Tensor, target: Tensor, terms: Terms, rates: Tensor | None) -> tuple[Tensor, Tensor]:
    smoothing, slope = terms.label_smoothing, terms.map.write(z)
    top, picked = z.amax(1, keepdim=True), z.gather(1, target)
    mean = z.mean(1, keepdim=True) if smoothing else picked
    total = z.sub_(top).exp_().sum(1, keepdim=True)
    log_total = total.log()
    plain = log_total - (picked - top)
    losses = plain + smoothing * (picked - mean) + terms.z_loss * (log_total + top).square()
    if rates is not None:
        z.mul_(rates * (1 + 2 * terms.z_loss * (log_total + top)) / total)
        if smoothing:
            z.sub_(rates * (smoothing / z.shape[1]))
        z.scatter_add_(1, target, -(1 - smoothing) * rates)
        if slope is not None:
            z.mul_(slope)
    return losses, plain
