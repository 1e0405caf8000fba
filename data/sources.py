"""Documents by the name of their source: lists where they are finite, streams where they are not."""

import glob
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cadenza.data import hub
from cadenza.data.config import TextConfig
from cadenza.data.errors import DataError
from cadenza.data.python_docs import python_docs

FILES = (".jsonl", ".jsonl.gz", ".txt", ".parquet")


def documents(cfg: TextConfig, train: bool, seed: int = 0) -> list[str] | Iterable[str]:
    """The documents to train on or to evaluate: a list, or a stream for Hub data sets and MDS.

    Finite sources are split by a hash of each document's text, so that neither order nor machine matters
    and no document stands on both sides. Streams differ from rank to rank and worker to worker.

    Raises:
        DataError: nothing there, not reachable, or no text in it.
    """
    if not train and cfg.eval_source is not None:
        return _capped(finite(cfg.eval_source, cfg.text_field, "data.eval_source"), cfg)
    if not is_finite(cfg.source):
        return _stream(cfg, train, seed)
    texts = finite(cfg.source, cfg.text_field, "data.source")
    if cfg.eval_source is None:
        texts = [text for text in texts if _is_eval(text, cfg.eval_fraction) is not train]
    return texts if train else _capped(texts, cfg)


def train_texts(cfg: TextConfig, limit: int = 100_000) -> Iterator[str]:
    """The training documents, the first `limit` of them: what a tokenizer is trained on."""
    for index, text in enumerate(documents(cfg, train=True)):
        if index == limit:
            return
        yield text


def is_finite(source: str) -> bool:
    """Whether `source` is read as a whole: files and python_docs."""
    return source == "python_docs" or source.endswith(FILES)


def finite(source: str, field: str, key: str) -> list[str]:
    """All documents of a finite source; `key` is the recipe's, for errors."""
    if not is_finite(source):
        raise DataError(f"{key}: {source} is neither python_docs nor files ending in {', '.join(FILES)}")
    texts = list(python_docs()) if source == "python_docs" else list(_from_files(source, field, key))
    if not texts:
        raise DataError(f"{key}: {source} holds no text")
    return texts


def _is_eval(text: str, fraction: float) -> bool:
    return zlib.crc32(text.encode()) < fraction * 2**32


def _capped(texts: list[str], cfg: TextConfig) -> list[str]:
    return texts[: cfg.eval_documents]


def _from_files(pattern: str, field: str, key: str) -> Iterator[str]:
    paths = sorted(glob.glob(str(Path(pattern).expanduser()), recursive=True))
    if not paths:
        raise DataError(f"{key}: no file matches {pattern}")
    for path in paths:
        if path.endswith(".txt"):
            yield Path(path).read_text(encoding="utf-8")
        else:
            yield from _fields(path, field, key)


def _fields(path: str, field: str, key: str) -> Iterator[str]:
    rows = _parquet_rows(path) if path.endswith(".parquet") else _json_rows(path, key)
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or field not in row:
            there = ", ".join(row) if isinstance(row, dict) else type(row).__name__
            raise DataError(
                f"{key}: {path} row {number} has no {field!r}; data.text_field is one of: {there}"
            )
        yield as_text(row[field], field, f"{path} row {number}")


def _json_rows(path: str, key: str) -> Iterator[Any]:
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{key}: {path} line {number} is not JSON ({error})") from error


def _parquet_rows(path: str) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as parquet

    for batch in parquet.ParquetFile(path).iter_batches():
        yield from batch.to_pylist()


def _stream(cfg: TextConfig, train: bool, seed: int) -> Iterable[str]:
    if cfg.source == "mds":
        from cadenza.data.mds import mds_documents

        return mds_documents(cfg, train, seed)
    return _hub_stream(cfg, train, seed)


def _hub_stream(cfg: TextConfig, train: bool, seed: int) -> Iterable[str]:
    from composer.utils import dist
    from datasets import load_dataset
    from datasets.distributed import split_dataset_by_node

    name, subset = ("allenai/c4", cfg.subset or "en") if cfg.source == "c4" else (cfg.source, cfg.subset)
    advice = "check the name and the network, or set data.source to python_docs or to local files"
    if not hub.reachable():
        raise DataError(f"data.source: data set {name!r} can't be reached: the Hub doesn't answer; {advice}")
    try:
        stream: Any = load_dataset(name, subset, split=cfg.split if train else cfg.eval_split, streaming=True)
        first = next(iter(stream))
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise DataError(f"data.source: data set {name!r} can't be read ({reason}); {advice}") from error
    if cfg.text_field not in first:
        raise DataError(f"data.text_field: {name} has no {cfg.text_field!r}, but {', '.join(first)}")
    if train:
        stream = stream.shuffle(seed=seed, buffer_size=cfg.shuffle_buffer)
    elif cfg.eval_documents is not None:
        stream = stream.take(cfg.eval_documents)
    stream = split_dataset_by_node(stream, rank=dist.get_global_rank(), world_size=dist.get_world_size())
    return Texts(stream, cfg.text_field)


class Texts:
    """One field of the rows of `rows`."""

    def __init__(self, rows: Iterable[Any], field: str) -> None:
        self.rows, self.field = rows, field

    def __iter__(self) -> Iterator[str]:
        for row in self.rows:
            if self.field not in row:
                raise DataError(
                    f"data.text_field: a row of the stream has no {self.field!r}, but {', '.join(row)}"
                )
            yield as_text(row[self.field], self.field, "a row of the stream")

    def set_epoch(self, epoch: int) -> None:
        """Let a Hub stream draw another order."""
        if hasattr(self.rows, "set_epoch"):
            self.rows.set_epoch(epoch)  # pyright: ignore[reportAttributeAccessIssue]


def as_text(value: Any, field: str, where: str) -> str:
    """`value`, if it is text."""
    if not isinstance(value, str):
        raise DataError(f"data.text_field: {field!r} of {where} holds {type(value).__name__}, not text")
    return value
