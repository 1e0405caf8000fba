"""What `cadenza data` prints."""

from typing import Any

import numpy as np

from cadenza.data.survey.facts import Facts
from cadenza.data.survey.unknown import unknown_words
from cadenza.data.text.config import TextConfig


def lines(facts: Facts, tokenizer: Any, cfg: TextConfig, partly: bool) -> list[str]:
    """The counts, a line for each subject."""
    return [_documents(facts, cfg, partly), _tokens(facts), _rows(facts, cfg), _unknown(facts, tokenizer)]


def title(cfg: TextConfig) -> str:
    """The source, and what it is used for."""
    return f"{', '.join(cfg.names)}, for training"


def _documents(facts: Facts, cfg: TextConfig, partly: bool) -> str:
    count = facts.documents
    part = f"the first {count:,} documents" if partly else f"{count:,} documents"
    empty = f", {facts.empty:,} of them without a token" if facts.empty else ""
    repeated = (
        f"; {facts.repeated:,} ({facts.repeated / count:.1%}) repeat an earlier one (data.deduplicate)"
        if facts.repeated
        else ""
    )
    return f"{title(cfg)}: {part}{empty}{repeated}"


def _tokens(facts: Facts) -> str:
    half, most, longest = np.quantile(facts.lengths, (0.5, 0.9, 1.0)).round().astype(int)
    spread = f"median {half:,}, 90 % up to {most:,}, longest {longest:,}"
    return f"tokens: {facts.lengths.sum():,}; of a document {facts.lengths.mean():,.0f} ({spread})"


def _rows(facts: Facts, cfg: TextConfig) -> str:
    said = f"rows of {facts.capacity} tokens: {len(facts.rows):,}"
    if facts.packed is None:
        return f"{said}, filled with one document after another"
    said += (
        f", {facts.padding:.1%} of them padding; packed {facts.packed:,}, {facts.packed_padding:.1%} padding"
    )
    share = facts.cut / max(int(facts.lengths.sum()), 1)
    return f"{said}; {share:.1%} of the tokens are cut off ({cfg.long_documents})"


def _unknown(facts: Facts, tokenizer: Any) -> str:
    if tokenizer.unk_token_id is None or not facts.unknown:
        return "unknown to the tokenizer: nothing"
    words = ", ".join(f"{word!r} {count:,}" for word, count in unknown_words(facts.first, tokenizer))
    share = facts.unknown / max(int(facts.lengths.sum()), 1)
    return f"unknown to the tokenizer: {share:.2%} of the tokens" + (f", most often {words}" if words else "")
