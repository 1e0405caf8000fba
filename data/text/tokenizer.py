"""The tokenizer: from the Hub, from a folder, or trained on text of the source."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cadenza.data import hub
from cadenza.data.errors import DataError, one_line
from cadenza.data.places import cache_folder, why_unwritable
from cadenza.data.ranks import from_first_rank
from cadenza.data.text.prepared.key import key_of
from cadenza.data.text.tokenizer_config import TokenizerConfig
from cadenza.data.text.vocabulary import SPECIAL, TRAINERS, key, train

FORMAT = 2  # raise it when the trainers change what they make of a text: kept ones are then trained anew


def build_tokenizer(
    cfg: TokenizerConfig,
    texts: Callable[[], Iterable[str]],
    masked: bool = True,
    made_of: dict[str, Any] | None = None,
) -> Any:
    """A fast transformers tokenizer.

    Args:
        texts: returns the text to train on; called on the first rank, for the kinds that are trained.
        made_of: what the text depends on, such as the times of its files: it isn't read if a tokenizer of the
            same is kept. None: the text itself.
        masked: whether a padding, class, separator and mask token are needed.

    Raises:
        DataError: no such tokenizer, the Hub isn't reachable, or a special token is missing.
    """
    tokenizer = _trained(cfg, texts, made_of) if cfg.name in TRAINERS else _loaded(cfg.name)
    if masked:
        check_special(tokenizer, cfg.name)
    return tokenizer


def check_special(tokenizer: Any, name: str) -> None:
    """Raise `DataError` if the tokenizer called `name` lacks a special token that masked LM needs."""
    missing = [key for key in SPECIAL if key != "unk_token" and getattr(tokenizer, key, None) is None]
    if missing:
        raise DataError(f"tokenizer.name: {name} has no {', '.join(missing)}; masked LM needs them all")


def _trained(cfg: TokenizerConfig, texts: Callable[[], Iterable[str]], made_of: Any) -> Any:
    """The tokenizer that the first rank trains, or finds in its cache; no other rank reads the text.

    Each rank reads its own part of a stream, and would train another vocabulary.
    """
    return from_first_rank(lambda: _cached(cfg, texts, made_of))


def _cached(cfg: TokenizerConfig, texts: Callable[[], Iterable[str]], made_of: Any) -> Any:
    from transformers import PreTrainedTokenizerFast

    corpus = None if made_of is not None else list(texts())
    digest = _digest(corpus, key(cfg)) if corpus is not None else key_of({**made_of, "tokenizer": key(cfg)})
    folder = cache_folder(cfg.cache_dir) / "tokenizers" / f"{cfg.name}-{cfg.vocab_size}-{digest}"
    if not folder.is_dir():
        _save(train(cfg, texts() if corpus is None else corpus), folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def _digest(corpus: list[str], options: Any = None) -> str:
    """A hash of the documents, each with its length: the same text in other documents is another corpus."""
    digest = hashlib.sha256(f"{FORMAT} {version('tokenizers')} {options}".encode())
    for text in corpus:
        content = text.encode()
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()[:16]


def _save(tokenizer: Any, folder: Path) -> None:
    """Save whole or not at all, so that another process never reads half a tokenizer."""
    if why := why_unwritable(folder.parent):
        raise DataError(
            f"tokenizer.cache_dir: {folder.parent} can't be written to ({why}); name another folder"
        )
    temporary = tempfile.mkdtemp(dir=folder.parent)
    tokenizer.save_pretrained(temporary)
    try:
        os.rename(temporary, folder)
    except OSError:  # another process saved it first
        shutil.rmtree(temporary)


def _loaded(name: str) -> Any:
    from transformers import AutoTokenizer

    path = Path(name).expanduser()
    if name.startswith((".", "/", "~")) and not path.is_dir():
        raise DataError(f"tokenizer.name: there is no folder {name}")
    local = path.is_dir() or not hub.reachable()
    try:
        return AutoTokenizer.from_pretrained(str(path) if path.is_dir() else name, local_files_only=local)
    except Exception as error:
        offline = local and not path.is_dir()
        reason = "it isn't cached, and the Hub doesn't answer" if offline else one_line(error)
        advice = "name a folder, or wordpiece, byte_bpe or unigram to train one on the data"
        raise DataError(f"tokenizer.name: {name} can't be loaded ({reason}); {advice}") from error
