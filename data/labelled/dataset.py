"""Labelled examples as token ids, indexed by draw."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cadenza.data.draws import Drawn
from cadenza.data.labelled.sets import Example
from cadenza.data.labelled.tokens import Tokens


class LabelledExamples(Drawn):
    """The ids of each example and its label.

    The tokens of all examples stand in one array: processes that load share its memory.

    Args:
        examples: as many as `tokens`.
    """

    def __init__(self, examples: list[Example], tokens: Sequence[Tokens]) -> None:
        self.examples = examples
        self.labels = np.array([example.label for example in examples])
        self.ends = np.cumsum([0, *(len(each.ids) for each in tokens)])
        self.ids = _joined([each.ids for each in tokens], np.int32)
        types = [each.types for each in tokens if each.types is not None]
        self.types = _joined(types, np.uint8) if types else None

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, draw: int) -> dict[str, Any]:
        """`input_ids` and, where the tokenizer makes them, `token_type_ids` (tokens,); `label` and `draw`."""
        index = draw % len(self)
        part = slice(self.ends[index], self.ends[index + 1])
        types = {} if self.types is None else {"token_type_ids": self.types[part]}
        return {"input_ids": self.ids[part], **types, "label": self.labels[index], "draw": draw}

    def lengths(self) -> np.ndarray:
        """(examples,) int64, the tokens of each."""
        return np.diff(self.ends)


def _joined(parts: list[np.ndarray], kind: Any) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=kind)
