"""Examples that share rows: another layout of a padded batch, with the same examples.

A Composer `DataSpec` takes `Packing` as its `microbatch_transforms`, and `examples_in` as its
`get_num_samples_in_batch`: the loss of a microbatch is weighed by its examples, not by its rows. An
evaluation whose sampler repeats examples needs padded batches: Composer cuts the last example off one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cadenza.attention.documents import PADDING
from cadenza.data.errors import DataError
from cadenza.data.text.datasets.packing import first_fit

BY_TOKEN = ("input_ids", "token_type_ids")
MASK = "attention_mask"


@dataclass(frozen=True)
class Packing:
    """`pack` with rows of at most `capacity` tokens."""

    capacity: int

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return pack(batch, self.capacity)


def pack(batch: Mapping[str, Any], capacity: int) -> dict[str, Any]:
    """A padded batch in rows of at most `capacity` tokens, which `sequence_packing` lets a model read.

    Which examples share a row follows from their lengths alone: first fit, longest first.

    Args:
        batch: `input_ids` and `attention_mask` (examples, length), maybe `token_type_ids`; padding is on
            either side. All else, such as `labels` and `draw`, has a value for each example.

    Returns:
        The tensors by token as (rows, longest row), with `document_ids`: 1, 2, ... in each row, -1 for
        padding. All else in the order of the examples in the rows.

    Raises:
        DataError: an example has no tokens.
        ValueError: an example has more than `capacity` tokens.
    """
    mask = batch[MASK] != 0
    lengths = mask.sum(1).tolist()
    if not min(lengths, default=1):
        raise DataError(f"example {lengths.index(0)} of a batch has no tokens; it can't be packed")
    rows = first_fit(lengths, capacity)
    order = torch.tensor([example for row in rows for example in row], device=mask.device)
    document_ids = _numbers(rows, lengths).to(mask.device)
    packed = {name: _in_rows(value, mask, order, document_ids) for name, value in _by_token(batch)}
    others = {name: _in_order(batch[name], order) for name in batch if name not in (*BY_TOKEN, MASK)}
    real = (document_ids != PADDING).to(batch[MASK].dtype)
    return {**packed, MASK: real, "document_ids": document_ids, **others}


def examples_in(batch: Mapping[str, Any]) -> int:
    """How many examples are in a batch, padded or packed."""
    return len(batch["labels"])


def _by_token(batch: Mapping[str, Any]) -> list[tuple[str, Tensor]]:
    return [(name, batch[name]) for name in BY_TOKEN if name in batch]


def _numbers(rows: list[list[int]], lengths: list[int]) -> Tensor:
    """(rows, longest row), the document of each token."""
    each = [
        [number for number, example in enumerate(row, 1) for _ in range(lengths[example])] for row in rows
    ]
    filled = [torch.tensor(numbers) for numbers in each]
    return torch.nn.utils.rnn.pad_sequence(filled, batch_first=True, padding_value=PADDING)


def _in_rows(values: Tensor, mask: Tensor, order: Tensor, document_ids: Tensor) -> Tensor:
    """(examples, length) -> (rows, longest row), in `order`; zeros at padding."""
    tokens = values[order][mask[order]]
    return values.new_zeros(document_ids.shape).masked_scatter(document_ids != PADDING, tokens)


def _in_order(values: Any, order: Tensor) -> Any:
    """The values of examples in another order: of a tensor, or a list of strings."""
    return (
        values[order.to(values.device)] if isinstance(values, Tensor) else [values[i] for i in order.tolist()]
    )
