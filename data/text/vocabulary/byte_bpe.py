"""Byte-level BPE: pairs of bytes of UTF-8."""

from collections.abc import Iterable
from typing import Any

from cadenza.data.text.vocabulary.finished import SPECIAL, finished
from cadenza.data.text.vocabulary.normal import folded


def train_byte_bpe(
    texts: Iterable[str], vocab_size: int, lowercase: bool = False, strip_accents: bool = False
) -> Any:
    """A byte-pair encoding of UTF-8 bytes, as GPT-2's: no text is unknown, and decoding gives it back.

    With `lowercase` or `strip_accents` decoding gives the text without capitals or accents.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    if lowercase or strip_accents:
        tokenizer.normalizer = normalizers.Sequence(folded(lowercase, strip_accents))  # type: ignore[assignment]
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    options = {"vocab_size": vocab_size, "lowercase": lowercase, "strip_accents": strip_accents}
    return finished(tokenizer, decoders.ByteLevel(), name="byte_bpe", **options)
