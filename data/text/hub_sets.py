"""Data sets of the Hub: streamed while training, or downloaded and read as a whole."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

from composer.utils import dist

from cadenza.data import hub
from cadenza.data.errors import DataError
from cadenza.data.text.bad_rows import kept
from cadenza.data.text.config import TextConfig
from cadenza.data.text.encoding import Document
from cadenza.data.text.finite import content_of, distinct, options_of
from cadenza.data.text.rows import Texts, check_columns, document_or_bad

ADVICE = "check the name and the network, or set data.source to python_docs or to local files"


class HubDocuments:
    """The documents of a split, downloaded by `datasets`; the interface is that of `Finite`."""

    def __init__(self, cfg: TextConfig, train: bool) -> None:
        self.cfg, self.train, self.say, self.position = cfg, train, None, 0
        self.where = f"data.source: {cfg.source}, split {_split(cfg, train)}"

    @cached_property
    def rows(self) -> Any:
        """The rows, on the disk."""
        from datasets import load_dataset

        name, subset = _name(self.cfg)
        with hub.reading(name, ADVICE):
            return load_dataset(name, subset, split=_split(self.cfg, self.train))

    @cached_property
    def size(self) -> int:
        """The bytes of the data set; `position` are those that were read of it."""
        return self.rows.data.nbytes

    def made_of(self) -> dict[str, Any]:
        """What the documents depend on: the data set's fingerprint, and the options of reading."""
        fingerprint = [*_name(self.cfg), self.rows._fingerprint]
        return {"files": [fingerprint], "options": options_of(self.cfg)}

    def __iter__(self) -> Iterator[Document]:
        check_columns(self.cfg, self.rows.column_names, str(self.cfg.source))
        found = kept(self._documents(), self.cfg.on_bad_row == "skip", self.where, self.say)
        return content_of(distinct(found) if self.cfg.deduplicate else found, self.where)

    def _documents(self) -> Iterator[Document | DataError]:
        for number, row in enumerate(self.rows, 1):
            self.position = self.size * number // len(self.rows)
            yield document_or_bad(row, self.cfg, f"{self.cfg.source} row {number}")


def hub_stream(cfg: TextConfig, train: bool, seed: int, whole: bool = False) -> Iterable[Document]:
    """The documents of this rank, or of all of them, shuffled to train on, read while they are needed."""
    from datasets import load_dataset
    from datasets.distributed import split_dataset_by_node

    name, subset = _name(cfg)
    with hub.reading(name, ADVICE):
        stream: Any = load_dataset(name, subset, split=_split(cfg, train), streaming=True)
        first_row = next(iter(stream))
    check_columns(cfg, first_row, name)
    if train:
        stream = stream.shuffle(seed=seed, buffer_size=cfg.shuffle_buffer)
    elif cfg.eval_documents is not None:
        stream = stream.take(cfg.eval_documents)
    if not whole:
        stream = split_dataset_by_node(stream, rank=dist.get_global_rank(), world_size=dist.get_world_size())
    return Texts(stream, cfg)


def _name(cfg: TextConfig) -> tuple[str, str | None]:
    return ("allenai/c4", cfg.subset or "en") if cfg.source == "c4" else (str(cfg.source), cfg.subset)


def _split(cfg: TextConfig, train: bool) -> str:
    return cfg.split if train else cfg.eval_split
