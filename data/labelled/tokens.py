"""The token ids of examples, made by the tokenizer's own call, with its special tokens around them.

A text that is too long is tokenized twice: to learn that it is, and cut.
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from composer.utils import dist
from tqdm.auto import tqdm

from cadenza.data.errors import BadRow, DataError
from cadenza.data.labelled.sets import Example
from cadenza.data.text.bad_rows import kept
from cadenza.data.text.encoding import BATCH, MOST, refuse_unknown
from cadenza.data.text.prepared.progress import all_cores

SHOWN = 5000  # examples from which a progress bar is shown


@dataclass(frozen=True)
class Tokens:
    """The tokens of an example.

    Args:
        ids: (tokens,) int32.
        types: (tokens,) uint8, the `token_type_ids`; None: the tokenizer makes none.
        cut: whether the example is longer than `data.max_seq_len`.
    """

    ids: np.ndarray
    types: np.ndarray | None
    cut: bool


class LabelledEncoder:
    """The tokens of examples. `cut` and `unknown_share` tell of those that were encoded.

    Args:
        limit: tokens of an example; the longer text of a pair is cut first.
        paired: whether examples are pairs.

    Raises:
        DataError: the special tokens of an example alone take `limit`, or nothing separates the texts of a
            pair.
    """

    def __init__(self, tokenizer: Any, limit: int, paired: bool) -> None:
        self.tokenizer, self.limit, self.paired = tokenizer, limit, paired
        self.special = tokenizer.num_special_tokens_to_add(pair=paired)
        ends = [getattr(tokenizer, f"{name}_token_id") for name in ("cls", "sep", "bos", "eos")]
        self.unk = None if tokenizer.unk_token_id in ends else tokenizer.unk_token_id
        self.examples = self.cut = self.tokens = self.unknown = 0
        self._check()

    def __call__(self, examples: list[Example], skip: bool, where: str) -> tuple[list[Example], list[Tokens]]:
        """The examples with a token beside special ones, and their tokens.

        Raises:
            DataError: an example without a token, unless `skip`; or most tokens are unknown.
        """
        found = list(kept(self._each(examples), skip, where))
        return [example for example, _ in found], [tokens for _, tokens in found]

    @property
    def unknown_share(self) -> float:
        """The share of unknown tokens, in [0, 1]."""
        return self.unknown / max(self.tokens, 1)

    def _check(self) -> None:
        needed = self.special + 1 + self.paired
        if self.limit < needed:
            takes = f"an example with special tokens takes {needed} at least"
            raise DataError(f"data.max_seq_len is {self.limit}; {takes}")
        if self.paired and self.special == self.tokenizer.num_special_tokens_to_add(pair=False):
            right = "join the texts in one field, with words of your own between them"
            raise DataError(f"tokenizer.name: it puts no token between the texts of a pair; {right}")

    def _each(self, examples: list[Example]) -> Iterator[tuple[Example, Tokens] | BadRow]:
        off = len(examples) < SHOWN or dist.get_global_rank() != 0
        with tqdm(total=len(examples), desc="tokenizing", unit="ex", disable=off) as bar:
            for start in range(0, len(examples), BATCH):
                batch = examples[start : start + BATCH]
                for example, tokens in zip(batch, self._encoded(batch), strict=True):
                    yield self._counted(example, tokens)
                refuse_unknown(self.unknown_share, MOST, f"{self.examples:,} examples", self.tokenizer)
                bar.update(len(batch))

    def _counted(self, example: Example, tokens: Tokens) -> tuple[Example, Tokens] | BadRow:
        if len(tokens.ids) <= self.special:
            return BadRow(f"data.text_field: {example.place} has no token to the tokenizer")
        self.examples += 1
        self.cut += tokens.cut
        self.tokens += len(tokens.ids) - self.special
        self.unknown += 0 if self.unk is None else int(np.count_nonzero(tokens.ids == self.unk))
        return example, tokens

    def _encoded(self, examples: list[Example]) -> list[Tokens]:
        found = self._called(examples, truncation=False)
        long = [index for index, tokens in enumerate(found) if len(tokens.ids) > self.limit]
        cut = self._called([examples[index] for index in long], truncation=True, max_length=self.limit)
        for index, tokens in zip(long, cut, strict=True):
            found[index] = Tokens(tokens.ids, tokens.types, cut=True)
        return found

    def _called(self, examples: list[Example], **options: Any) -> list[Tokens]:
        if not examples:
            return []
        pairs = [example.pair or "" for example in examples] if self.paired else None
        texts = [example.text for example in examples]
        with all_cores():  # not while a generator waits, which an error leaves open
            made = self.tokenizer(texts, pairs, return_attention_mask=False, verbose=False, **options)
        types = made.get("token_type_ids") or [None] * len(texts)
        return [
            Tokens(_array("i", ids), None if kinds is None else _array("B", kinds), cut=False)
            for ids, kinds in zip(made["input_ids"], types, strict=True)
        ]


def _array(kind: str, values: list[int]) -> np.ndarray:
    return np.asarray(array(kind, values))
