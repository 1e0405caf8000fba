"""Documents as token ids, and how much of them is unknown to the tokenizer."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from cadenza.data.errors import DataError

BATCH = 1000  # documents that go through the tokenizer together
MOST = 0.5  # the share of unknown tokens above which a text isn't trained on


class Encoder:
    """The token ids of each document, without special tokens.

    `documents`, `tokens` and `unknown` count what was encoded; an unknown token stands for text that isn't in
    the vocabulary.

    Raises:
        DataError: most tokens so far are unknown. It is checked after each batch of documents.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.documents = self.tokens = self.unknown = 0

    def __call__(self, texts: Iterable[str]) -> Iterator[list[int]]:
        remaining = iter(texts)
        while batch := list(islice(remaining, BATCH)):
            ids = self.tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]
            self._count(ids)
            yield from ids

    @property
    def unknown_share(self) -> float:
        """The share of unknown tokens, in [0, 1]."""
        return self.unknown / max(self.tokens, 1)

    def _count(self, ids: list[list[int]]) -> None:
        unknown = self.tokenizer.unk_token_id
        self.documents += len(ids)
        self.tokens += sum(map(len, ids))
        self.unknown += 0 if unknown is None else sum(row.count(unknown) for row in ids)
        if self.unknown_share > MOST:
            part = f"{self.unknown_share:.0%} of the tokens of the first {self.documents:,} documents"
            right = "name one that knows this text, or byte_bpe to train one that knows every text"
            raise DataError(f"tokenizer.name: {part} are {self.tokenizer.unk_token}, unknown words; {right}")
