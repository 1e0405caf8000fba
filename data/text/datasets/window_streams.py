"""The windows of a stream, for causal language modelling."""

from collections.abc import Iterable, Iterator
from typing import Any

from cadenza.data.progress import Place
from cadenza.data.text.config import TextConfig
from cadenza.data.text.datasets.sequences import TokenizedStream, unread
from cadenza.data.text.datasets.windows import windows
from cadenza.data.text.encoding import Document, Encoder
from cadenza.data.text.marks.tagging import Piece, Tagging
from cadenza.data.text.marks.upsampling import Shares

Ahead = tuple[tuple[str, int], ...]


class WindowedStream(TokenizedStream):
    """The windows of a stream; each rank and worker fills windows with the documents that it reads.

    A place is a document, and the tokens of all its pieces that earlier windows hold.
    """

    def __init__(self, texts: Iterable[Document], tokenizer: Any, cfg: TextConfig, fixed: bool) -> None:
        super().__init__(texts, tokenizer, cfg.max_seq_len, split=True, fixed=fixed)
        self.cfg, self.tagging = cfg, Tagging(tokenizer, cfg)

    @property
    def layout(self) -> dict[str, Any]:
        names = "max_seq_len", "domain_tag", "upsample_from", "upsample_times", "domain_field"
        return {
            **{f"data.{name}": getattr(self.cfg, name) for name in names},
            # None where earlier checkpoints, which lack these names, mean the same.
            "data.domain_format": self.cfg.domain_format if self.cfg.domain_field else None,
            "data.end_of_document": None if self.cfg.end_of_document else False,
        }

    def rows(self, start: Place) -> Iterator[tuple[dict[str, Any], Place]]:
        pieces = PlacedPieces(self._pieces(start), start)
        for number, row in enumerate(windows(pieces, self.max_seq_len, self.tagging.anchor), 1):
            yield row, pieces.place(number * (self.max_seq_len - 1))

    def _pieces(self, start: Place) -> Iterator[tuple[int, Ahead, Piece]]:
        """(number of the document, `Place.ahead` before it, piece), from the document of `start` on."""
        anchor = None if self.cfg.anchor_token is None else self.tagging.anchor
        encoder, shares = Encoder(self.tokenizer, anchor=anchor), Shares(dict(start.ahead))
        documents = encoder.with_domains(unread(self.texts, encoder, start))
        for number, (ids, domain) in enumerate(documents, start.document):
            before, pieces = tuple(shares.ahead.items()), self.tagging.pieces(ids, domain)
            if domain is not None and pieces and self.cfg.upsample_from is not None:
                pieces = pieces[:1] * shares.times(domain, len(pieces[0][0]), len(pieces))
            yield from ((number, before, piece) for piece in pieces)


class PlacedPieces:
    """Pieces from a place on; knows the place behind any of the last one's tokens.

    Args:
        pieces: (number of the document, `Place.ahead` before it, piece), from the first piece of the document
            of `start` on.
    """

    def __init__(self, pieces: Iterable[tuple[int, Ahead, Piece]], start: Place) -> None:
        self.pieces, self.start, self.ahead = pieces, start, start.ahead
        self.document = self.unit = self.tokens = 0  # behind the last piece; tokens from `start` on

    def __iter__(self) -> Iterator[Piece]:
        for number, ahead, (tokens, tag) in self.pieces:
            self.ahead = ahead
            self.unit = len(tokens) + (self.unit if number == self.document else 0)
            self.document = number
            passed = max(self.start.unit - self.unit + len(tokens), 0) if number == self.start.document else 0
            if passed < len(tokens):
                self.tokens += len(tokens) - passed
                yield tokens[passed:], max(tag - passed, 0)

    def place(self, tokens: int) -> Place:
        """Behind so many tokens from `start` on, which end in the last piece, or behind all of them."""
        return Place(self.document, self.unit - max(self.tokens - tokens, 0), ahead=self.ahead)
