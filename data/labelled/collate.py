"""Examples of several lengths as one batch."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cadenza.data.errors import DataError

MULTIPLE = 8  # of which a batch's length is, as tensor cores need


class LabelledCollator:
    """Pads examples on the tokenizer's side.

    Args:
        tokenizer: gives the padding token (`padding_id`) and its side.
        max_seq_len: no batch is padded beyond it.
        classes: whether labels are ids of classes, rather than numbers.

    Raises:
        DataError: the tokenizer has no token to pad with.
    """

    def __init__(self, tokenizer: Any, max_seq_len: int, classes: bool) -> None:
        types = getattr(tokenizer, "pad_token_type_id", 0)
        self.padding = {"input_ids": padding_id(tokenizer), "token_type_ids": types}
        self.left = tokenizer.padding_side == "left"
        self.max_seq_len, self.label = max_seq_len, torch.int64 if classes else torch.float32

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """(batch, length) `input_ids`, `attention_mask`, `token_type_ids`; (batch,) `labels` and `draw`.

        The length is that of the longest example, rounded up to a multiple of 8.
        """
        lengths = np.array([len(example["input_ids"]) for example in examples])
        rounded = -(-int(lengths.max()) // MULTIPLE) * MULTIPLE
        columns = np.arange(min(rounded, max(self.max_seq_len, int(lengths.max()))))
        real = (columns[::-1] if self.left else columns) < lengths[:, None]
        padded = {
            name: _padded([example[name] for example in examples], real, value)
            for name, value in self.padding.items()
            if name in examples[0]
        }
        return {
            **padded,
            "attention_mask": torch.from_numpy(real.astype(np.int64)),
            "labels": torch.tensor(np.array([example["label"] for example in examples]), dtype=self.label),
            "draw": torch.tensor([example["draw"] for example in examples]),
        }


def padding_id(tokenizer: Any) -> int:
    """The id of padding; of a tokenizer without it, as those of most decoders, that of the end of a text.

    Raises:
        DataError: the tokenizer has neither.
    """
    for name in ("pad_token_id", "eos_token_id", "sep_token_id"):
        if (found := getattr(tokenizer, name, None)) is not None:
            return found
    raise DataError("tokenizer.name: the tokenizer has no pad_token, eos_token or sep_token to pad with")


def _padded(rows: list[np.ndarray], real: np.ndarray, padding: int) -> Tensor:
    """(batch, length) int64: `rows` where `real` is True, one after another, else `padding`."""
    batch = np.full(real.shape, padding)
    batch[real] = np.concatenate(rows)
    return torch.from_numpy(batch)
