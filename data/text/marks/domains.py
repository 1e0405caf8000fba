"""Documents that carry the name of their domain, such as `RedPajamaWikipedia`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Content = str | np.ndarray  # a text, or its token ids (tokens,) int32


@dataclass(frozen=True)
class OfDomain:
    """A document and its domain, the value of `data.domain_field`."""

    content: Content
    domain: str

    def __len__(self) -> int:
        return len(self.content)


Document = Content | OfDomain


def content(document: Document) -> Content:
    """The text or the token ids of a document."""
    return document.content if isinstance(document, OfDomain) else document


def domain_of(document: Document) -> str | None:
    """The domain of a document; None without `data.domain_field`."""
    return document.domain if isinstance(document, OfDomain) else None


@dataclass(frozen=True)
class Domains:
    """The domains of rows.

    Args:
        names: each once.
        numbers: (rows,) int64, the index in `names` of each row's domain.
    """

    names: Sequence[str]
    numbers: np.ndarray

    def name(self, row: int) -> str:
        """The domain of a row."""
        return self.names[int(self.numbers[row])]

    @classmethod
    def of(cls, each: Sequence[str]) -> "Domains":
        """Of the domain of each row."""
        names, numbers = np.unique(np.array(each, dtype=object), return_inverse=True)
        return cls(names.tolist(), numbers.astype(np.int64))
