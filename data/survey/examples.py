"""Rows of a training batch as text."""

from typing import Any

from cadenza.data.text.datasets.sequences import TokenizedDocuments, pieces
from cadenza.data.text.datasets.windows import CausalLMCollator, WindowedDocuments
from cadenza.data.text.encoding import Document
from cadenza.data.text.loader import masked_collator, masked_cut
from cadenza.data.text.marks.domains import Domains, OfDomain
from cadenza.data.text.masking import IGNORED, Batch
from cadenza.data.text.prepared.cut import Cut

TOKENS = 48  # of a row that are shown


def batch(texts: list[Document], tokenizer: Any, recipe: Any, count: int) -> Batch | None:
    """The first `count` rows that `texts` give, as a batch of training; None if they give none."""
    cfg, seed = recipe.data, recipe.seed
    if recipe.model.objective == "causal_lm":
        filled = list(pieces(texts, tokenizer, Cut(None)))
        names = [text.domain for text in texts if isinstance(text, OfDomain)]
        domains = Domains.of(names) if names else None
        windows = _first(WindowedDocuments(filled, tokenizer, cfg, seed, domains), count)
        return CausalLMCollator(tokenizer, cfg.boundary_loss)(windows) if windows else None
    documents = TokenizedDocuments(list(pieces(texts, tokenizer, masked_cut(cfg))), tokenizer)
    rows, collator = _first(documents, count), masked_collator(cfg, tokenizer, True, seed)
    return collator.mask(collator(rows)) if rows else None


def _first(rows: Any, count: int) -> list[Any]:
    return [rows[n] for n in range(min(count, len(rows)))]


def examples(batch: Batch, tokenizer: Any, causal: bool) -> list[str]:
    """Each row of a batch, as its tokens; of masked tokens `what the model sees<what it is to predict>`.

    Args:
        batch: `input_ids` (rows, length), `attention_mask` and `labels`, -100 for none.
        causal: whether each token predicts the next one, so that labels show nothing of their own.
    """
    ids, mask, labels = (batch[name].tolist() for name in ("input_ids", "attention_mask", "labels"))
    rows = zip(ids, mask, labels, strict=True)
    return [_row(seen, sum(real), wanted, tokenizer, causal) for seen, real, wanted in rows]


def _row(ids: list[int], length: int, labels: list[int], tokenizer: Any, causal: bool) -> str:
    seen, wanted = (tokenizer.convert_ids_to_tokens(x[:TOKENS]) for x in (ids, [max(n, 0) for n in labels]))
    shown = [
        token if causal or label == IGNORED else f"{token}<{right}>"
        for token, label, right in zip(seen, labels, wanted, strict=False)
    ]
    more = f" ... {length - TOKENS} more" if length > TOKENS else ""
    return " ".join(shown[:length]) + more
