"""WordPiece: the pieces of words that spaces and punctuation separate."""

from collections.abc import Iterable
from typing import Any

from cadenza.data.text.vocabulary.finished import SPECIAL, check_room, finished
from cadenza.data.text.vocabulary.normal import cleaned, folded

LONGEST = 100  # characters of a word: WordPiece takes longer ones for unknown


def train_wordpiece(
    texts: Iterable[str], vocab_size: int, lowercase: bool = False, strip_accents: bool = False
) -> Any:
    """A WordPiece, which splits words as BERT does; [PAD] is 0.

    Unlike BERT's, it keeps case, accents, vowel signs and joiners unless told otherwise, and splits words of
    more than 100 characters, such as sentences of languages that are written without spaces. Control
    characters and zero-width spaces count as spaces; other invisible characters are dropped.

    Raises:
        DataError: the vocabulary is too small for the characters of the text.
    """
    from tokenizers import decoders, models

    corpus, fold = list(texts), folded(lowercase, strip_accents)
    letters = _vocabulary(corpus, 0, [], fold)
    check_room(vocab_size, len(letters))
    # The trainer breaks ties by id, but numbers letters within words, such as ##a, in the order of a hash map
    # that differs from call to call. Special tokens get their ids first, in the order of the list.
    within = sorted(letter for letter in letters if letter.startswith("##"))
    vocabulary = _vocabulary(corpus, vocab_size, [*SPECIAL.values(), *within], fold)
    tokenizer = _wordpiece(models.WordPiece(vocabulary, unk_token="[UNK]"), fold)  # type: ignore[call-arg]
    options = {"vocab_size": vocab_size, "lowercase": lowercase, "strip_accents": strip_accents}
    return finished(tokenizer, decoders.WordPiece(), name="wordpiece", **options)


def _vocabulary(corpus: list[str], size: int, first: list[str], fold: list[Any]) -> dict[str, int]:
    """The trained vocabulary, `first` in front; of size 0, the letters alone."""
    from tokenizers import models, trainers

    tokenizer = _wordpiece(models.WordPiece(unk_token="[UNK]"), fold)  # type: ignore[call-arg]
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=first, show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer.get_vocab()


def _wordpiece(model: Any, fold: list[Any]) -> Any:
    from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

    tokenizer = Tokenizer(model)
    words = normalizers.BertNormalizer(clean_text=False, strip_accents=False, lowercase=False)
    tokenizer.normalizer = normalizers.Sequence([*cleaned(), words, *fold])  # type: ignore[assignment]
    parts = pre_tokenizers.Split(Regex(f".{{1,{LONGEST}}}"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [pre_tokenizers.BertPreTokenizer(), parts]
    )
    return tokenizer
