"""Documents as token ids, and how much of them is unknown to the tokenizer."""

import copy
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from cadenza.data.errors import DataError
from cadenza.data.text.marks.domains import Content, Document, content, domain_of
from cadenza.data.text.prepared.cuts import next_place, separators

BATCH = 1000  # documents that go through the tokenizer together, at most
CHARACTERS = 1 << 20  # the same in characters; a token takes about 150 bytes while a text is tokenized
PART = 1 << 16  # characters of the parts in which a long text is tokenized
EACH = 8  # characters that a token stands for, at most, in most texts
MOST = 0.5  # the share of unknown tokens above which a text isn't trained on


class Encoder:
    """The token ids (tokens,) int32 of each document, without special tokens.

    Documents that are token ids already stay as they are. `documents`, `tokens` and `unknown` count what was
    encoded; an unknown token stands for text that isn't in the vocabulary. `most` is the share of them above
    which the text isn't trained on.

    Args:
        limit: tokens of a document that are needed: the first ones. A long text is then tokenized in part,
            where `separators` says that the first tokens stay what they are.
        anchor: the id that no document of token ids may hold; None: each may.

    Raises:
        DataError: most tokens so far are unknown, checked after each batch of documents; or ids that aren't
            in the vocabulary, or hold the anchor.
    """

    def __init__(self, tokenizer: Any, limit: int | None = None, anchor: int | None = None) -> None:
        self.tokenizer, self.limit, self.anchor = tokenizer, limit, anchor
        self.backend = _backend(tokenizer)
        self.separators = separators(self.backend) if self.backend is not None else ""
        self.special, self.words = set(tokenizer.all_special_ids), max(tokenizer.get_vocab().values()) + 1
        self.documents = self.tokens = self.unknown = 0
        self.most = MOST

    def __call__(self, documents: Iterable[Document]) -> Iterator[np.ndarray]:
        for batch in _batches(documents):
            texts = [document for document in batch if isinstance(document, str)]
            encoded = iter(self._encoded(texts))
            ids = [next(encoded) if isinstance(x, str) else self._bare(x)[: self.limit] for x in batch]
            self._count(ids)
            yield from ids

    def with_domains(self, documents: Iterable[Document]) -> Iterator[tuple[np.ndarray, str | None]]:
        """The token ids of each document, and its domain."""
        domains: deque[str | None] = deque()

        def noted() -> Iterator[Document]:
            for document in documents:
                domains.append(domain_of(document))
                yield document

        return ((ids, domains.popleft()) for ids in self(noted()))

    @property
    def unknown_share(self) -> float:
        """The share of unknown tokens, in [0, 1]."""
        return self.unknown / max(self.tokens, 1)

    def unknown_in(self, ids: np.ndarray) -> int:
        """The number of unknown tokens in `ids`."""
        unknown = self.tokenizer.unk_token_id
        return 0 if unknown is None else int(np.count_nonzero(ids == unknown))

    def _bare(self, ids: np.ndarray) -> np.ndarray:
        """`ids` without a special token in front and behind, which rows and windows get anew."""
        if ids.max(initial=0) >= self.words:
            right = f"{self.words:,} words; name the tokenizer that the ids are of"
            raise DataError(f"data.ids_field: there is the id {ids.max()}, but the tokenizer has {right}")
        start = int(len(ids) > 0 and int(ids[0]) in self.special)
        bare = ids[start : len(ids) - (len(ids) > start and int(ids[-1]) in self.special)]
        if self.anchor is not None and (bare == self.anchor).any():
            right = "leave that document out, or name another token"
            raise DataError(f"data.anchor_token: a document holds its id, {self.anchor}; {right}")
        return bare

    def _encoded(self, texts: list[str]) -> list[np.ndarray]:
        """The ids of each text, part by part, until all are encoded or have `limit` tokens."""
        found: list[list[np.ndarray]] = [[] for _ in texts]
        ends, size = [0] * len(texts), min(EACH * (self.limit or PART), PART)
        remaining = [index for index, text in enumerate(texts) if text]
        while remaining:
            owners, parts = [], []
            for index in remaining:
                for part in self._parts(texts[index], ends[index], size):
                    owners.append(index)
                    parts.append(part)
                    ends[index] += len(part)
            for index, ids in zip(owners, self._ids(parts), strict=True):
                found[index].append(ids)
            remaining = [i for i in remaining if ends[i] < len(texts[i]) and not self._enough(found[i])]
            size = min(2 * size, PART)
        return [np.concatenate(parts)[: self.limit] if parts else _NONE for parts in found]

    def _parts(self, text: str, start: int, size: int) -> Iterator[str]:
        """The next parts of `text`: one, or without a limit as many as are tokenized together."""
        most = 1 if self.limit else max(CHARACTERS // size, 1)
        for _ in range(most):
            end = next_place(text, start + size, self.separators)
            yield text[start:end]
            if end == len(text):
                return
            start = end

    def _enough(self, parts: list[np.ndarray]) -> bool:
        return self.limit is not None and sum(map(len, parts)) >= self.limit

    def _ids(self, texts: list[str]) -> list[np.ndarray]:
        if self.backend is not None:
            encodings = self.backend.encode_batch_fast(texts, add_special_tokens=False)
            return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]
        encoded = self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        return [np.array(ids, dtype=np.int32) for ids in encoded]

    def _count(self, ids: list[np.ndarray]) -> None:
        self.documents += len(ids)
        self.tokens += sum(map(len, ids))
        self.unknown += sum(map(self.unknown_in, ids))
        refuse_unknown(self.unknown_share, self.most, f"{self.documents:,} documents", self.tokenizer)


def refuse_unknown(share: float, most: float, counted: str, tokenizer: Any) -> None:
    """Raise `DataError` if more than the share `most` of the tokens of the first documents are unknown."""
    if share > most:
        part = f"{share:.0%} of the tokens of the first {counted}"
        right = "name one that knows this text, or byte_bpe to train one that knows every text"
        raise DataError(f"tokenizer.name: {part} are {tokenizer.unk_token}, unknown words; {right}")


_NONE = np.zeros(0, dtype=np.int32)


def _batches(documents: Iterable[Document]) -> Iterator[list[Content]]:
    batch, size = [], 0
    for document in documents:
        batch.append(content(document))
        size += len(document)
        if len(batch) == BATCH or size >= CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _backend(tokenizer: Any) -> Any | None:
    """A copy of what a fast tokenizer computes ids by, for calls without its Python; None of other ones.

    transformers' call sets truncation and padding on each use, and some subclasses change the text.
    """
    from transformers import PreTrainedTokenizerFast as Fast

    own = isinstance(tokenizer, Fast) and all(
        getattr(type(tokenizer), name) is getattr(Fast, name) for name in ("__call__", "_encode_plus")
    )
    if not own:
        return None
    backend = copy.deepcopy(tokenizer.backend_tokenizer)
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = bool(getattr(tokenizer, "split_special_tokens", False))
    return backend
