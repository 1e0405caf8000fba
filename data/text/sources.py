"""Documents by the name of their source: lists of finite sources, streams of others."""

import glob
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cadenza.data import hub
from cadenza.data.errors import DataError, check_field
from cadenza.data.text.config import TextConfig
from cadenza.data.text.files import FILES, documents_of
from cadenza.data.text.mds import mds_documents
from cadenza.data.text.python_docs import python_docs
from cadenza.data.text.rows import Texts

ADVICE = "check the name and the network, or set data.source to python_docs or to local files"


def documents(cfg: TextConfig, train: bool, seed: int = 0) -> list[str] | Iterable[str]:
    """The documents to train on or to evaluate: a list, or a stream for Hub data sets and MDS.

    Finite sources are split by a hash of each document's text. So the split depends neither on the order nor
    on the machine, and equal documents are on the same side. Each rank and worker reads its own part of a
    stream.

    Raises:
        DataError: no such source, not reachable, or no text in it.
    """
    if not train and cfg.eval_source is not None:
        return finite(cfg.eval_source, cfg.text_field, "data.eval_source")[: cfg.eval_documents]
    if not is_finite(cfg.source):
        return (mds_documents if cfg.source == "mds" else _hub_stream)(cfg, train, seed)
    texts = finite(cfg.source, cfg.text_field, "data.source")
    if cfg.eval_source is None:
        texts = [text for text in texts if _is_eval(text, cfg.eval_fraction) is not train]
    return texts if train else texts[: cfg.eval_documents]


def train_texts(cfg: TextConfig, limit: int = 100_000) -> Iterator[str]:
    """The first `limit` training documents: the text that a tokenizer is trained on."""
    for index, text in enumerate(documents(cfg, train=True)):
        if index == limit:
            return
        yield text


def is_finite(source: str) -> bool:
    """Whether `source` is read as a whole: files and python_docs."""
    return source == "python_docs" or source.endswith(FILES)


def finite(source: str, field: str, key: str) -> list[str]:
    """All documents of a finite source; error messages begin with `key`, the key in the recipe."""
    if not is_finite(source):
        raise DataError(f"{key}: {source} is neither python_docs nor files ending in {', '.join(FILES)}")
    texts = list(python_docs()) if source == "python_docs" else list(_from_files(source, field, key))
    if not any(text.strip() for text in texts):
        raise DataError(f"{key}: {source} holds no text")
    return texts


def _is_eval(text: str, fraction: float) -> bool:
    return zlib.crc32(text.encode()) < fraction * 2**32


def _from_files(pattern: str, field: str, key: str) -> Iterator[str]:
    paths = sorted(glob.glob(str(Path(pattern).expanduser()), recursive=True))
    if not paths:
        raise DataError(f"{key}: no file matches {pattern}")
    for path in paths:
        yield from documents_of(path, field, key)


def _hub_stream(cfg: TextConfig, train: bool, seed: int) -> Iterable[str]:
    from composer.utils import dist
    from datasets import load_dataset
    from datasets.distributed import split_dataset_by_node

    name, subset = ("allenai/c4", cfg.subset or "en") if cfg.source == "c4" else (cfg.source, cfg.subset)
    split = cfg.split if train else cfg.eval_split
    with hub.reading(name, ADVICE):
        stream: Any = load_dataset(name, subset, split=split, streaming=True)
        first_row = next(iter(stream))
    check_field("text_field", cfg.text_field, first_row, name)
    if train:
        stream = stream.shuffle(seed=seed, buffer_size=cfg.shuffle_buffer)
    elif cfg.eval_documents is not None:
        stream = stream.take(cfg.eval_documents)
    stream = split_dataset_by_node(stream, rank=dist.get_global_rank(), world_size=dist.get_world_size())
    return Texts(stream, cfg.text_field)
