"""The tokenizer of a checkpoint: a run that loads the checkpoint goes on with the same ids, or not at all."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cadenza.data import TokenizerConfig
from cadenza.data.errors import one_line
from cadenza.data.text.vocabulary import TRAINERS
from cadenza.models.export import tokenizer_files
from cadenza.recipe.errors import RecipeError
from cadenza.surgery.checkpoint import read

SPECIAL_IDS = [f"{name}_token_id" for name in ("pad", "unk", "bos", "eos", "cls", "sep", "mask")]
# Cases, accents, joiners, digits, punctuation and white space, which tokenizers treat in different ways.
SAMPLE = "The Café's  nai\u0308ve x_1: 3.14\t(कु के) Tiếng Việt \u0645\u06cc\u200c\u062e ไทย 日本 🙂 don't\n"

KINDS = {"WordPiece": "wordpiece", "BPE": "byte_bpe", "Unigram": "unigram"}
RIGHT = "name the folder of the one that it was trained with"


def of_run(path: str | Path, cfg: TokenizerConfig, build: Callable[[], Any]) -> Any:
    """The tokenizer of a run that loads the checkpoint at `path`.

    Where the recipe says to train one, the checkpoint's own is taken, even if the text is another one now.
    Else it is the one that `build` returns.

    Raises:
        RecipeError: the recipe's tokenizer isn't that of the checkpoint: ids would mean other words.
    """
    saved = None if "://" in str(path) else saved_in(path)
    if cfg.name not in TRAINERS:
        named = build()
        if saved is not None and not alike(saved, named):
            sizes = f"{len(named):,} words, there {len(saved):,}"
            more = "" if cfg.new_tokens is None else " with tokenizer.new_tokens"
            raise RecipeError(
                f"tokenizer.name: {cfg.name}{more} isn't the tokenizer of {path} ({sizes}); {RIGHT}"
            )
        return named
    if saved is None:
        reason = "would be downloaded too late" if "://" in str(path) else "has no tokenizer"
        raise RecipeError(f"tokenizer.name: {path} {reason}; {RIGHT}")
    _check_asked(saved, cfg, path)
    return saved


def refuse_other_words(recipe: Any, checkpoint: str | Path | None) -> None:
    """Raise if a pretrained model would be given the ids of a tokenizer that is trained here."""
    name, pretrained = recipe.tokenizer.name, recipe.model.pretrained
    if pretrained is not None and name in TRAINERS and checkpoint is None:
        right = f"name the tokenizer that model.pretrained {pretrained} was trained with"
        raise RecipeError(f"tokenizer.name is {name!r}, whose ids stand for other words; {right}")


def saved_in(path: str | Path) -> Any | None:
    """The tokenizer in the checkpoint at `path`; None if there is none."""
    from transformers import AutoTokenizer

    state = read(path, trusted=True)
    if "huggingface" not in (state.get("integrations") or {}):
        return None
    files = tokenizer_files(state, str(path))
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            Path(folder, name).write_bytes(content)
        try:
            return AutoTokenizer.from_pretrained(folder, local_files_only=True) if files else None
        except Exception as error:
            raise RecipeError(f"{path}: its tokenizer can't be read ({one_line(error)})") from error


def alike(one: Any, other: Any) -> bool:
    """Whether two tokenizers have the same words and special tokens, and treat a text of many kinds alike."""
    same_words = one.get_vocab() == other.get_vocab()
    same_ids = all(getattr(one, name) == getattr(other, name) for name in SPECIAL_IDS)
    return same_words and same_ids and one(SAMPLE)["input_ids"] == other(SAMPLE)["input_ids"]


def _check_asked(saved: Any, cfg: TokenizerConfig, path: str | Path) -> None:
    """A trained tokenizer says what was asked for; of one of an earlier version it is seen."""
    for key, value in {**_seen(saved, cfg.vocab_size), **saved.init_kwargs.get("trained", {})}.items():
        if getattr(cfg, key) != value:
            raise RecipeError(f"tokenizer.{key} is {getattr(cfg, key)!r}; {path} was trained with {value!r}")


def _seen(saved: Any, size: int) -> dict[str, Any]:
    """What a tokenizer must have been asked for, by what it does; `size` if it has no more words.

    A short text gives fewer words than asked for. Early versions lower-cased in any case, and the first ones
    dropped accents as well.
    """
    backend = saved.backend_tokenizer
    sample = backend.normalizer.normalize_str("\u00c9") if backend.normalizer is not None else "\u00c9"
    return {
        "name": KINDS.get(type(backend.model).__name__),
        "vocab_size": max(len(saved), size),
        "lowercase": sample == sample.lower(),
        "strip_accents": sample.lower() == "e",
    }
