"""One pass over the rows of an output layer, in chunks: losses, hits and gradients."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cadenza.losses.row_losses import Terms, differentiate_

ROWS = {"cpu": 512}  # rows at a time, by device
OTHER_ROWS = 4096  # on a GPU, whose products are fast on many rows


@dataclass(frozen=True)
class Chunked:
    """How a loss is computed.

    Args:
        terms: the loss of a row.
        rows: rows in a chunk; None: `ROWS` or `OTHER_ROWS` by the device.
        hits: whether each row's highest logit is looked for.
        words: the rows of the weight that stand for words; None: all.
    """

    terms: Terms = field(default_factory=Terms)
    rows: int | None = None
    hits: bool = False
    words: int | None = None


class ChunkPass:
    """One pass over the chunks."""

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Any,
        labels: Tensor,
        rates: Tensor,
        how: Any,
        wanted: tuple,
        dtype: Any,
    ) -> None:
        self.hidden, self.labels, self.rates, self.how, self.dtype = hidden, labels, rates, how, dtype
        self.words = len(weight) if how.words is None else how.words
        self.weight = weight[: self.words].to(dtype)
        self.bias = None if bias is None else bias[: self.words].to(dtype)
        made = [
            None if not w else torch.zeros_like(x, dtype=rates.dtype)
            for w, x in zip(wanted[1:], (weight, bias), strict=True)
        ]
        self.of_hidden = torch.empty_like(hidden, dtype=dtype) if wanted[0] else None
        self.of_weight, self.of_bias = made
        self.losses, self.plain = torch.empty_like(rates), torch.empty_like(rates)
        self.hits = torch.zeros_like(labels, dtype=torch.bool)
        for place in self._places():
            self._chunk(place)

    @property
    def gradients(self) -> tuple:
        return self.of_hidden, self.of_weight, self.of_bias

    def _places(self) -> Iterator[slice]:
        rows = self.how.rows or ROWS.get(self.hidden.device.type, OTHER_ROWS)
        most = min(rows, len(self.labels))
        self.buffer = self.weight.new_empty(most, self.words)
        return (slice(start, start + rows) for start in range(0, len(self.labels), rows))

    def _chunk(self, place: slice) -> None:
        hidden, labels = self.hidden[place].to(self.dtype), self.labels[place]
        logits = self.buffer[: len(hidden)]
        if self.bias is None:
            torch.mm(hidden, self.weight.t(), out=logits)
        else:
            torch.addmm(self.bias, hidden, self.weight.t(), out=logits)
        if self.how.hits:
            self.hits[place] = logits.argmax(1) == labels
        numbers = logits.to(self.rates.dtype)
        wanted = any(gradient is not None for gradient in self.gradients)
        rates = self.rates[place] if wanted else None
        self.losses[place], self.plain[place] = differentiate_(numbers, labels, self.how.terms, rates)
        if wanted:
            self._add(place, hidden, numbers, numbers if numbers is logits else logits.copy_(numbers))

    def _add(self, place: slice, hidden: Tensor, exact: Tensor, gradient: Tensor) -> None:
        """Add a chunk's part of each gradient."""
        if self.of_hidden is not None:
            torch.mm(gradient, self.weight, out=self.of_hidden[place])
        if self.of_bias is not None:
            self.of_bias[: self.words] += exact.sum(0)
        if self.of_weight is not None:
            total = self.of_weight[: self.words]
            if hidden.is_cuda and hidden.dtype != exact.dtype:  # products of float32 are slow there
                total += gradient.t() @ hidden
            else:
                total.addmm_(exact.t(), hidden.to(exact.dtype))
