"""Tokenizers trained on text. A vocabulary is a function of the text: the same in every process."""

from collections.abc import Iterable
from typing import Any

from cadenza.data.errors import DataError

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
LONGEST = 100  # characters of a word: WordPiece takes longer ones for unknown


def train_wordpiece(texts: Iterable[str], vocab_size: int) -> Any:
    """A lower-casing WordPiece, which splits words as BERT does; [PAD] is 0.

    Unlike BERT's, it keeps accents, vowel signs and joiners, and splits words of more than 100 characters,
    such as sentences of languages that are written without spaces. Control characters and zero-width spaces
    count as spaces; other invisible characters are dropped.

    Raises:
        DataError: the vocabulary is too small for the characters of the text.
    """
    from tokenizers import decoders, models

    corpus = list(texts)
    letters = _vocabulary(corpus, 0, [])
    needed = len(SPECIAL) + len(letters)
    if vocab_size < needed:
        raise DataError(
            f"tokenizer.vocab_size is {vocab_size}; the characters of the text alone take {needed}: "
            "set it higher, or tokenizer.name=byte_bpe, which needs 261"
        )
    # The trainer breaks ties by id, but numbers letters within words, such as ##a, in the order of a hash map
    # that differs from call to call. Special tokens get their ids first, in the order of the list.
    within = sorted(letter for letter in letters if letter.startswith("##"))
    vocabulary = _vocabulary(corpus, vocab_size, [*SPECIAL.values(), *within])
    tokenizer = _wordpiece(models.WordPiece(vocabulary, unk_token="[UNK]"))  # type: ignore[call-arg]
    return _finished(tokenizer, decoders.WordPiece(), "wordpiece", vocab_size)


def train_byte_bpe(texts: Iterable[str], vocab_size: int) -> Any:
    """A byte-pair encoding of UTF-8 bytes, as GPT-2's: no text is unknown, and decoding gives it back."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _finished(tokenizer, decoders.ByteLevel(), "byte_bpe", vocab_size)


def _vocabulary(corpus: list[str], size: int, first: list[str]) -> dict[str, int]:
    """The trained vocabulary, `first` in front; of size 0, the letters alone."""
    from tokenizers import models, trainers

    tokenizer = _wordpiece(models.WordPiece(unk_token="[UNK]"))  # type: ignore[call-arg]
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=first, show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer.get_vocab()


def _wordpiece(model: Any) -> Any:
    from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(  # type: ignore[assignment]
        [
            normalizers.NFC(),  # an accent is part of its letter where Unicode has such a letter
            normalizers.Replace(Regex(r"[\p{Cc}\u200b]"), " "),
            normalizers.Replace(Regex(r"[\p{Cf}&&[^\u200c\u200d]]"), ""),
            normalizers.BertNormalizer(clean_text=False, strip_accents=False, lowercase=True),
        ]
    )
    parts = pre_tokenizers.Split(Regex(f".{{1,{LONGEST}}}"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [pre_tokenizers.BertPreTokenizer(), parts]
    )
    return tokenizer


def _finished(tokenizer: Any, decoder: Any, name: str, vocab_size: int) -> Any:
    """As transformers' tokenizer, with [CLS] and [SEP] around a text; its files say what was asked for."""
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    tokenizer.decoder = decoder
    asked = {"name": name, "vocab_size": vocab_size}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, trained=asked, **SPECIAL)


TRAINERS = {"wordpiece": train_wordpiece, "byte_bpe": train_byte_bpe}
