"""The tokenizer: from the Hub, from a folder, or a WordPiece trained on text of the source."""

import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from cadenza.data import hub
from cadenza.data.errors import DataError, one_line
from cadenza.data.text.config import TokenizerConfig

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def build_tokenizer(cfg: TokenizerConfig, texts: Callable[[], Iterable[str]], masked: bool = True) -> Any:
    """A fast transformers tokenizer.

    Args:
        texts: returns the text to train on; called for `wordpiece` alone.
        masked: whether a padding, class, separator and mask token are needed.

    Raises:
        DataError: no such tokenizer, the Hub isn't reachable, or a special token is missing.
    """
    tokenizer = _trained(cfg, texts()) if cfg.name == "wordpiece" else _loaded(cfg.name)
    if not masked:
        return tokenizer
    missing = [name for name in SPECIAL if name != "unk_token" and getattr(tokenizer, name, None) is None]
    if missing:
        raise DataError(f"tokenizer.name: {cfg.name} has no {', '.join(missing)}; masked LM needs them all")
    return tokenizer


def train_wordpiece(texts: Iterable[str], vocab_size: int) -> Any:
    """A lower-casing WordPiece with BERT's normalizer and pre-tokenizer; [PAD] is 0."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = list(SPECIAL.values())
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # type: ignore[call-arg]
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)  # type: ignore[assignment]
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment]
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    _add_layout(tokenizer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL)


def _add_layout(tokenizer: Any) -> None:
    from tokenizers import decoders, processors

    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    tokenizer.decoder = decoders.WordPiece()


def _trained(cfg: TokenizerConfig, texts: Iterable[str]) -> Any:
    """The cached tokenizer for this vocabulary size and this text; trained and saved if there is none."""
    from composer.utils import dist
    from transformers import PreTrainedTokenizerFast

    corpus, checksum = list(texts), 0
    for text in corpus:
        checksum = zlib.crc32(text.encode(), checksum)
    cache = cfg.cache_dir or os.environ.get("CADENZA_CACHE") or "~/.cache/cadenza"
    folder = Path(cache).expanduser() / "tokenizers" / f"wordpiece-{cfg.vocab_size}-{checksum:08x}"
    with dist.run_local_rank_zero_first():
        if not folder.is_dir():
            _save(train_wordpiece(corpus, cfg.vocab_size), folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def _save(tokenizer: Any, folder: Path) -> None:
    """Save whole or not at all, so that another process never reads half a tokenizer."""
    folder.parent.mkdir(parents=True, exist_ok=True)
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
        advice = "name a folder, or wordpiece to train one on the data"
        raise DataError(f"tokenizer.name: {name} can't be loaded ({reason}); {advice}") from error
