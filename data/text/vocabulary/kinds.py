"""The kinds of tokenizers that are trained, and the options that decide what comes out."""

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from cadenza.data.text.tokenizer_config import TokenizerConfig
from cadenza.data.text.vocabulary.byte_bpe import train_byte_bpe
from cadenza.data.text.vocabulary.unigram import needs_sentencepiece, train_unigram
from cadenza.data.text.vocabulary.wordpiece import train_wordpiece

TRAINERS = {"wordpiece": train_wordpiece, "byte_bpe": train_byte_bpe, "unigram": train_unigram}
OPTIONS = ("name", "vocab_size", "lowercase", "strip_accents")  # those that decide what is trained


def asked(cfg: TokenizerConfig) -> dict[str, Any]:
    """The options that decide, together with the text, which tokenizer is trained."""
    return {name: getattr(cfg, name) for name in OPTIONS}


def key(cfg: TokenizerConfig) -> dict[str, Any]:
    """`asked`, and the versions of the libraries that train: what a tokenizer depends on besides its text.

    Raises:
        DataError: a library isn't installed.
    """
    libraries = ["tokenizers"]
    if cfg.name == "unigram":
        needs_sentencepiece()
        libraries.append("sentencepiece")
    return {**asked(cfg), **{name: version(name) for name in libraries}}


def train(cfg: TokenizerConfig, texts: Iterable[str]) -> Any:
    """The tokenizer that `cfg` asks for, trained on `texts`; errors as in its trainer."""
    options = asked(cfg)
    return TRAINERS[options.pop("name")](texts, **options)
