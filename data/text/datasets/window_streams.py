"""The windows of a stream, for causal language modelling."""

from collections.abc import Iterable, Iterator
from typing import Any

from cadenza.data.progress import Place
from cadenza.data.text.config import TextConfig
from cadenza.data.text.datasets.sequences import TokenizedStream, encoded
from cadenza.data.text.datasets.windows import Piece, Tagging, anchor_id, windows
from cadenza.data.text.encoding import Document, Encoder


class WindowedStream(TokenizedStream):
    """The windows of a stream; each rank and worker fills windows with the documents that it reads.

    A place is a document, and the tokens of all its pieces that earlier windows hold.
    """

    def __init__(self, texts: Iterable[Document], tokenizer: Any, cfg: TextConfig, fixed: bool) -> None:
        super().__init__(texts, tokenizer, cfg.max_seq_len, split=True, fixed=fixed)
        self.cfg, self.tagging, self.anchor = cfg, Tagging(tokenizer, cfg), anchor_id(tokenizer)

    @property
    def layout(self) -> dict[str, Any]:
        names = "max_seq_len", "domain_tag", "upsample_from", "upsample_times"
        return {f"data.{name}": getattr(self.cfg, name) for name in names}

    def rows(self, start: Place) -> Iterator[tuple[dict[str, Any], Place]]:
        pieces = PlacedPieces(self._pieces(start), start)
        for number, row in enumerate(windows(pieces, self.max_seq_len, self.anchor), 1):
            yield row, pieces.place(number * (self.max_seq_len - 1))

    def _pieces(self, start: Place) -> Iterator[tuple[int, Piece]]:
        """(number of the document, piece), from the document of `start` on."""
        for number, ids in encoded(self.texts, Encoder(self.tokenizer), start):
            yield from ((number, piece) for piece in self.tagging.pieces(ids))


class PlacedPieces:
    """Pieces from a place on; knows the place behind any of the last one's tokens.

    Args:
        pieces: (number of the document, piece), from the first piece of the document of `start` on.
    """

    def __init__(self, pieces: Iterable[tuple[int, Piece]], start: Place) -> None:
        self.pieces, self.start = pieces, start
        self.document = self.unit = self.tokens = 0  # behind the last piece; tokens from `start` on

    def __iter__(self) -> Iterator[Piece]:
        for number, (tokens, tag) in self.pieces:
            self.unit = len(tokens) + (self.unit if number == self.document else 0)
            self.document = number
            passed = max(self.start.unit - self.unit + len(tokens), 0) if number == self.start.document else 0
            if passed < len(tokens):
                self.tokens += len(tokens) - passed
                yield tokens[passed:], max(tag - passed, 0)

    def place(self, tokens: int) -> Place:
        """Behind so many tokens from `start` on, which end in the last piece, or behind all of them."""
        return Place(self.document, self.unit - max(self.tokens - tokens, 0))
