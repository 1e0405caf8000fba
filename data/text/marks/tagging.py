"""A document's token ids between the tag of its domain and an end token."""

from typing import Any

import numpy as np

from cadenza.data.errors import DataError
from cadenza.data.text.config import TextConfig
from cadenza.data.text.marks.anchor import check_anchor, end_id
from cadenza.data.text.marks.domains import Domains

Piece = tuple[np.ndarray, int]  # tokens, and how many of them, from the first, are a tag: they get no loss


class Tagging:
    """Adds tag and end token to documents; says how often long documents come.

    Args:
        cfg: `domain_tag`, `domain_format`, `anchor_token`, `end_of_document`, `upsample_from` and
            `upsample_times` are read.
    """

    def __init__(self, tokenizer: Any, cfg: TextConfig) -> None:
        self.tokenizer, self.cfg = tokenizer, cfg
        self.anchor = check_anchor(tokenizer, cfg.anchor_token, cfg.end_of_document)
        self.end = np.asarray([end_id(tokenizer)] if cfg.end_of_document else [], dtype=np.int32)
        self.tags: dict[str | None, np.ndarray] = {None: self._tag(cfg.domain_tag, "data.domain_tag")}

    def tag(self, domain: str | None) -> np.ndarray:
        """(tokens,) int32, the tag of a domain; of None, `data.domain_tag`."""
        if domain not in self.tags:
            form = self.cfg.domain_format
            text = form.replace("{domain}", str(domain)) if form else None
            self.tags[domain] = self._tag(text, f"data.domain_field: {domain!r}")
        return self.tags[domain]

    def __call__(self, ids: np.ndarray, domain: str | None = None) -> Piece:
        tag = self.tag(domain)
        return np.concatenate([tag, ids, self.end]), len(tag)

    def pieces(self, ids: np.ndarray, domain: str | None = None) -> list[Piece]:
        """Those of a document: none if it is empty, several for upsampling."""
        return [self(ids, domain)] * int(self.times(np.array(len(ids)))) if len(ids) else []

    def lengths(self, lengths: np.ndarray, domains: Domains | None = None) -> np.ndarray:
        """The tokens of pieces, for those of documents."""
        if domains is None:
            return lengths + len(self.tag(None)) + len(self.end)
        tags = np.array([len(self.tag(name)) for name in domains.names], dtype=np.int64)
        return lengths + tags[domains.numbers] + len(self.end)

    def times(self, lengths: np.ndarray) -> np.ndarray:
        """How often documents of these numbers of tokens come in a pass."""
        upsampled = lengths >= (self.cfg.upsample_from or np.inf)
        return np.where(upsampled, self.cfg.upsample_times, 1)

    def _tag(self, text: str | None, where: str) -> np.ndarray:
        tag = self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
        room = self.cfg.max_seq_len - 2
        if len(tag) > room:
            window = f"a window of {self.cfg.max_seq_len} has {room} beside the anchor and the text"
            raise DataError(f"{where}: the tag has {len(tag)} tokens; {window}")
        if self.cfg.anchor_token is not None and self.anchor in tag:
            raise DataError(f"{where}: the tag holds the anchor, {self.cfg.anchor_token!r}; leave it out")
        return np.asarray(tag, dtype=np.int32)
