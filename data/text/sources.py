"""Documents by the name of their source: lists of finite sources, streams of others."""

import os
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from cadenza.data import hub
from cadenza.data.errors import DataError
from cadenza.data.text.bad_rows import kept
from cadenza.data.text.config import TextConfig
from cadenza.data.text.files.documents import documents_of
from cadenza.data.text.files.paths import is_local, paths_of
from cadenza.data.text.mds import mds_documents
from cadenza.data.text.python_docs import python_docs
from cadenza.data.text.rows import Texts, column_of

STREAMS = ("c4", "mds")  # names that never mean a file or a folder here
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
        return finite(cfg.eval_source, cfg, "data.eval_source")[: cfg.eval_documents]
    if not is_finite(cfg.source):
        if cfg.deduplicate:
            raise DataError(
                f"data.deduplicate needs a source that is read as a whole; {cfg.source} is a stream"
            )
        return (mds_documents if cfg.source == "mds" else _hub_stream)(cfg, train, seed)
    texts = finite(cfg.source, cfg, "data.source")
    if cfg.eval_source is None:
        texts = [text for text in texts if _is_eval(text, cfg.eval_fraction) is not train]
    return texts if train else texts[: cfg.eval_documents]


def train_texts(cfg: TextConfig, limit: int = 100_000) -> Iterator[str]:
    """The first `limit` training documents: the text that a tokenizer is trained on."""
    for index, text in enumerate(documents(cfg, train=True)):
        if index == limit:
            return
        yield text


def is_finite(source: str | list[str]) -> bool:
    """Whether `source` is read as a whole: files, python_docs, and lists."""
    return isinstance(source, list) or source == "python_docs" or (source not in STREAMS and is_local(source))


def finite(source: str | list[str], cfg: TextConfig, key: str) -> list[str]:
    """All documents of a finite source; error messages begin with `key`, the key in the recipe."""
    names = source if isinstance(source, list) else [source]
    for name in names:
        if not is_finite(name):
            raise DataError(f"{key}: {name} is neither python_docs nor a file, a folder or a glob")
    where = f"{key}: {', '.join(names)}"
    texts = list(kept(_rows(names, cfg, key), cfg.on_bad_row == "skip", where))
    if not any(text.strip() for text in texts):
        raise DataError(f"{where} holds no text")
    return list(dict.fromkeys(texts)) if cfg.deduplicate else texts


def _rows(names: list[str], cfg: TextConfig, key: str) -> Iterator[str | DataError]:
    read: dict[str, int] = {}  # each file, and the index of the name that it belongs to
    for index, name in enumerate(names):
        docs = name == "python_docs"
        for path in [name] if docs else paths_of(name, key):
            if (other := read.setdefault(os.path.realpath(path), index)) != index:
                raise DataError(f"{key}: {path} is read twice, by {names[other]} and by {name}; name it once")
            yield from python_docs() if docs else documents_of(path, cfg, key)


def _is_eval(text: str, fraction: float) -> bool:
    return zlib.crc32(text.encode()) < fraction * 2**32


def _hub_stream(cfg: TextConfig, train: bool, seed: int) -> Iterable[str]:
    from composer.utils import dist
    from datasets import load_dataset
    from datasets.distributed import split_dataset_by_node

    source = str(cfg.source)
    name, subset = ("allenai/c4", cfg.subset or "en") if source == "c4" else (source, cfg.subset)
    split = cfg.split if train else cfg.eval_split
    with hub.reading(name, ADVICE):
        stream: Any = load_dataset(name, subset, split=split, streaming=True)
        first_row = next(iter(stream))
    column_of(cfg.text_field, first_row, name)
    if train:
        stream = stream.shuffle(seed=seed, buffer_size=cfg.shuffle_buffer)
    elif cfg.eval_documents is not None:
        stream = stream.take(cfg.eval_documents)
    stream = split_dataset_by_node(stream, rank=dist.get_global_rank(), world_size=dist.get_world_size())
    return Texts(stream, cfg.text_field, cfg.on_bad_row == "skip")
