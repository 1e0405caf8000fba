"""Attention in blocks of rows: of all probabilities only one block of one layer exists at a time.

Each block is computed by the model's own `eager` attention, so that the probabilities are those that
`output_attentions=True` returns, softcaps and sinks of a family included.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from cadenza.attention.call import IDLE, KNOWN, OWN, additive_mask
from cadenza.attention.kernels.sdpa import stock_kernel
from cadenza.attention.modules import SEAMS
from cadenza.attention.plan import plan_of
from cadenza.attention.seam import attend
from cadenza.studies.checks import StudyError

NAME = "cadenza_row_blocks"  # in place of `eager`, which transformers doesn't look up
NAMES = NAME, SEAMS["eager"]
BLOCK = 2**24  # probabilities in a block


class Reader(Protocol):
    """What is handed each block of each layer."""

    def block(self, start: int, query: Tensor, key: Tensor, scaling: float, probabilities: Tensor) -> None:
        """Read a block.

        Args:
            start: the first row of the block.
            query: (batch, heads, rows, head_dim), as attention multiplies it.
            key: (batch, key_value_heads, start + rows, head_dim).
            scaling: the factor of query times key.
            probabilities: (batch, heads, rows, start + rows); those of later keys are 0.
        """

    def end_of_layer(self) -> None:
        """All rows of a layer have been read."""


@dataclass(frozen=True)
class BlockMask:
    """A mask of transformers that is made block by block.

    Args:
        options: the arguments of transformers' function for masks.
    """

    options: dict[str, Any]

    def rows(self, start: int, stop: int) -> Tensor:
        """(batch, 1, stop - start, stop) bool, whether a query sees a key."""
        place = {"q_offset": start, "q_length": stop - start, "kv_length": stop}
        whole = {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
        mask: Any = sdpa_mask(**(self.options | place | whole))
        return mask


def block_mask(**options: Any) -> BlockMask:
    """Transformers' mask, for rows of a model without a cache."""
    return BlockMask(options)


AttentionMaskInterface.register(NAME, block_mask)  # a model asks for no mask by names known to one file


def rows_of(batch: int, heads: int, length: int) -> int:
    """The rows of a block."""
    return min(length, max(1, BLOCK // (batch * heads * length)))


@dataclass(frozen=True)
class RowBlocks:
    """An attention function that hands each block to `reader`; arguments and result as in `attend`."""

    reader: Reader

    def __call__(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
    ) -> tuple[Tensor, None]:
        _refuse(module, attention_mask, options)
        query, key = query.to(value.dtype), key.to(value.dtype)  # an exact rotation leaves them in float32
        batch, heads, length, width = query.shape
        output = value.new_empty(batch, length, heads, value.shape[-1])
        scaling = options.get("scaling") or width**-0.5
        for rows in torch.arange(length).split(rows_of(batch, heads, length)):
            start, stop = int(rows[0]), int(rows[-1]) + 1
            seen, mask = key[:, :, :stop], attention_mask.rows(start, stop)
            part = query[:, :, start:stop]
            output[:, start:stop], found = _kernel(module, part, seen, value[:, :, :stop], mask, options)
            self.reader.block(start, part, seen, scaling, found)
        self.reader.end_of_layer()
        return output, None


def _kernel(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, options: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    if plan_of(module) is not None:
        output, found = attend(module, query, key, value, mask, **options)
    else:
        added = additive_mask(mask, None, query, "eager")
        output, found = stock_kernel(module, "eager")(module, query, key, value, added, **options)
    if found is None:
        raise StudyError(f"--model: {type(module).__name__} computes no probabilities")
    return output, found


def _refuse(module: Any, mask: Any, options: dict[str, Any]) -> None:
    given = {name for name, value in options.items() if value is not None and value is not False}
    if unknown := sorted(given - KNOWN - OWN - IDLE):
        name = type(module).__name__
        raise StudyError(f"--model: {name} passes {', '.join(unknown)} to attention, which D doesn't know")
    if not isinstance(mask, BlockMask):
        raise StudyError(f"--model: {type(module).__name__} makes its mask itself, not by transformers")


@contextmanager
def read_by(reader: Reader, model: nn.Module) -> Iterator[None]:
    """Let `reader` read the attention of `model`, which was loaded with `eager`."""
    named = [m.config for m in model.modules() if hasattr(m, "config")]
    stock: Any = {id(config): config for config in named if config._attn_implementation == "eager"}
    for name in NAMES:
        ALL_ATTENTION_FUNCTIONS[name] = RowBlocks(reader)
        ALL_MASK_ATTENTION_FUNCTIONS[name] = block_mask
    for config in stock.values():
        config._attn_implementation = NAME
    try:
        yield
    finally:
        for config in stock.values():
            config._attn_implementation = "eager"
        for name in NAMES:
            del ALL_ATTENTION_FUNCTIONS[name], ALL_MASK_ATTENTION_FUNCTIONS[name]
