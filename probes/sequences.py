"""Short rows of random tokens: packed documents, padded rows, and changes of some tokens.

Draws come from a generator of their own, so no global random state moves. Special tokens are left out where
the model's config names them: some models treat them otherwise (padding, masks, image places).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

PADDING = -1  # the number of a document that stands for padding


def special_ids(config: Any) -> set[int]:
    """The token ids that a config names: `pad_token_id`, `image_token_index`, those of a nested config."""
    found: set[int] = set()
    for name, value in vars(config).items():
        if name.endswith(("_token_id", "_token_ids", "_token_index")):
            values = value if isinstance(value, list | tuple) else [value]
            found |= {each for each in values if isinstance(each, int)}
        elif hasattr(value, "to_dict"):  # the config of a part of the model
            found |= special_ids(value)
    return found


def vocabulary(model: Any) -> int:
    """The number of token ids that `model` takes: without rows of the embeddings that only pad them."""
    rows = len(model.get_input_embeddings().weight)
    stated = getattr(model.config, "vocab_size", None)
    return min(stated, rows) if isinstance(stated, int) else rows


def ordinary_ids(model: Any) -> Tensor:
    """(count,) the token ids of `model` that aren't special, on the CPU.

    Raises:
        ValueError: the model has no input embeddings, or fewer than two ordinary tokens.
    """
    size = vocabulary(model)
    left_out = special_ids(model.config) | {getattr(model.get_input_embeddings(), "padding_idx", None)}
    found = [each for each in range(size) if each not in left_out]
    if len(found) < 2:
        raise ValueError(
            f"the vocabulary of {size} has {len(found)} tokens that aren't special; 2 are needed"
        )
    return torch.tensor(found)


class Draw:
    """Random tokens of a model.

    Args:
        model: a model with `config` and `get_input_embeddings()`.
        seed: the same seed and model give the same tokens.
    """

    def __init__(self, model: Any, seed: int = 0) -> None:
        self.ids = ordinary_ids(model)
        self.generator = torch.Generator().manual_seed(seed)

    def tokens(self, *shape: int) -> Tensor:
        """`shape`, int64 on the CPU."""
        return self.ids[self._below(len(self.ids), shape)]

    def others(self, tokens: Tensor) -> Tensor:
        """Tokens of which each differs from the one of `tokens` in its place."""
        place = torch.searchsorted(self.ids, tokens.contiguous())
        step = 1 + self._below(len(self.ids) - 1, tokens.shape)
        return self.ids[(place + step) % len(self.ids)]

    def weights(self, *shape: int) -> Tensor:
        """Standard normal numbers, float32 on the CPU."""
        return torch.randn(shape, generator=self.generator, device="cpu")

    def _below(self, end: int, shape: Sequence[int]) -> Tensor:
        return torch.randint(end, tuple(shape), generator=self.generator, device="cpu")


def documents(lengths: Sequence[Sequence[int]]) -> Tensor:
    """(rows, length) int64: 1, 2, ... for the documents of each row, -1 for padding behind a shorter row."""
    longest = max(sum(row) for row in lengths)
    numbers = torch.full((len(lengths), longest), PADDING, device="cpu")
    for row, own in enumerate(lengths):
        order = torch.arange(1, len(own) + 1, device="cpu")
        numbers[row, : sum(own)] = order.repeat_interleave(torch.tensor(list(own), device="cpu"))
    return numbers


def positions(numbers: Tensor) -> Tensor:
    """(rows, length) int64: the place of each token in its document, by the numbers of `documents`."""
    place = torch.arange(numbers.shape[1], device=numbers.device).expand_as(numbers)
    first = torch.ones_like(numbers[:, :1], dtype=torch.bool)
    starts = torch.cat([first, numbers[:, 1:] != numbers[:, :-1]], dim=1)
    return place - torch.where(starts, place, 0).cummax(dim=1).values


def each_document(numbers: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The name of each document, and where it is: (rows, length) of booleans."""
    for row in range(len(numbers)):
        for number in numbers[row].unique().tolist():
            if number != PADDING:
                where = torch.zeros_like(numbers, dtype=torch.bool)
                where[row] = numbers[row] == number
                yield f"row {row}, document {number}", where


def padded(rows: Sequence[Tensor], amount: int, side: str, content: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of tokens with padding on one `side`: `amount` to the longest row, more to the others.

    Args:
        content: (rows, length) what stands in the places of padding; its shape is that of the result.

    Returns:
        The tokens and the mask (1 real, 0 padding), each (rows, longest + amount) int64.
    """
    ids, mask = content.clone(), torch.zeros_like(content)
    length = max(len(row) for row in rows) + amount
    for number, row in enumerate(rows):
        start = length - len(row) if side == "left" else 0
        ids[number, start : start + len(row)] = row
        mask[number, start : start + len(row)] = 1
    return ids, mask
