"""Unigram: pieces of any text, also of scripts that are written without spaces, by SentencePiece."""

import io
import tempfile
from collections import Counter
from collections.abc import Iterable
from typing import Any

from cadenza.data.errors import DataError
from cadenza.data.text.vocabulary.finished import SPECIAL, check_room, finished
from cadenza.data.text.vocabulary.normal import cleaned, folded

SPACE = "\u2581"  # stands for the space in front of a word
RESERVED = "\u2585"  # SentencePiece leaves out each word that holds it
LONGEST = 1000  # characters of a word that the trainer sees: SentencePiece leaves out longer lines
THREADS = 16  # parts that sums are made of: they depend on this number, not on the cores of a machine
FIXED = {
    "input_format": "tsv",
    "model_type": "unigram",
    "character_coverage": 1.0,
    "normalization_rule_name": "identity",
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
    "hard_vocab_limit": False,
    "num_threads": THREADS,
    "bos_id": -1,
    "eos_id": -1,
    "minloglevel": 2,
}


def train_unigram(
    texts: Iterable[str], vocab_size: int, lowercase: bool = False, strip_accents: bool = False
) -> Any:
    """A unigram language model of pieces (Kudo, arXiv 1804.10959); [PAD] is 0.

    A piece may hold several words of a script without spaces, but no space and no two scripts. The trainer is
    SentencePiece's: that of `tokenizers` adds up in the order of a hash map, which differs from call to call.
    White space is normalized to spaces, and invisible characters are treated as in `train_wordpiece`.

    Raises:
        DataError: the vocabulary is too small for the characters of the text, the text is empty, or
            SentencePiece isn't installed.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    normalizer = _normalizer(lowercase, strip_accents)
    pieces = _pieces(_words(texts, normalizer), vocab_size)
    special = [(token, 0.0) for token in SPECIAL.values()]
    unknown = list(SPECIAL).index("unk_token")
    tokenizer = Tokenizer(models.Unigram([*special, *pieces], unk_id=unknown, byte_fallback=False))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()  # type: ignore[assignment]
    options = {"vocab_size": vocab_size, "lowercase": lowercase, "strip_accents": strip_accents}
    return finished(tokenizer, decoders.Metaspace(), name="unigram", **options)


def needs_sentencepiece() -> Any:
    """The module `sentencepiece`, or a `DataError` if it isn't installed."""
    try:
        import sentencepiece
    except ImportError as error:
        right = "pip install 'cadenza[unigram]', or train wordpiece or byte_bpe"
        raise DataError(
            f"tokenizer.name: unigram needs sentencepiece, which isn't installed: {right}"
        ) from error
    return sentencepiece


def _normalizer(lowercase: bool, strip_accents: bool) -> Any:
    from tokenizers import Regex, normalizers

    spaces = normalizers.Replace(Regex(r"\p{Z}"), " ")
    return normalizers.Sequence([*cleaned(), spaces, *folded(lowercase, strip_accents)])


def _words(texts: Iterable[str], normalizer: Any) -> Counter[str]:
    """How often each word, with the mark of its space, stands in the text; long words are cut."""
    words: Counter[str] = Counter()
    for text in texts:
        for word in normalizer.normalize_str(text).replace(RESERVED, " ").split():
            marked = SPACE + word
            words.update(marked[start : start + LONGEST] for start in range(0, len(marked), LONGEST))
    return words


def _pieces(words: Counter[str], vocab_size: int) -> list[tuple[str, float]]:
    """The pieces with their logarithmic probabilities, the most probable first."""
    sentencepiece = needs_sentencepiece()
    if not words:
        raise DataError("tokenizer.name: there is no text to train unigram on")
    check_room(vocab_size, len(set().union(*words)))
    model, size = io.BytesIO(), vocab_size - len(SPECIAL) + 1  # its own unknown token is among them
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".tsv") as file:
        file.writelines(f"{word}\t{count}\n" for word, count in sorted(words.items()))
        file.flush()
        sentencepiece.SentencePieceTrainer.train(
            input=file.name, model_writer=model, vocab_size=size, **FIXED
        )
    trained: Any = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return [(trained.id_to_piece(id), trained.get_score(id)) for id in range(1, len(trained))]
