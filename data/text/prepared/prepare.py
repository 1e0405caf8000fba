"""Prepare a finite source once: its documents as rows of token ids on disk.

1. `made_of`: what the rows depend on, whose hash names their folder. If the folder is there, it is used.
2. One rank of each node prepares, the others wait for it; `_locked`: so do other runs on the machine.
3. `_written`: documents are read, tokenized by all cores and written, step by step. A process that was killed
   is resumed: the documents of earlier steps are read again, but not tokenized.
4. The folder gets its name when everything is in it.
"""

import shutil
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cadenza.data.errors import DataError
from cadenza.data.places import cache_folder, reason, why_unwritable
from cadenza.data.ranks import once_a_node, show
from cadenza.data.text.config import TextConfig
from cadenza.data.text.encoding import Document, Encoder
from cadenza.data.text.finite import is_eval
from cadenza.data.text.marks.anchor import anchor_id
from cadenza.data.text.prepared.cut import Cut
from cadenza.data.text.prepared.journal import Journal, Part, Writer
from cadenza.data.text.prepared.key import key_of, tokenizer_digest
from cadenza.data.text.prepared.progress import all_cores, remaining
from cadenza.data.text.prepared.rows import Rows
from cadenza.data.text.sources import whole


@dataclass(frozen=True)
class Prepared:
    """The rows of the training or the evaluation part, and the counts of all of that part.

    `cfg` is the config of their source alone.
    """

    rows: Rows
    counts: Part
    folder: Path
    cfg: TextConfig

    @property
    def documents(self) -> int:
        """The number of documents that the rows are of, or that gave none."""
        limit = self.rows.documents
        return self.counts.documents if limit is None else min(limit, self.counts.documents)


def prepared(cfg: TextConfig, tokenizer: Any, cut: Cut, train: bool, key: str = "data.source") -> Prepared:
    """The rows to train on or to evaluate of a config with a finite source, prepared if they aren't yet.

    Error messages of the source begin with `key`.

    Raises:
        DataError: text that can't be read, mostly unknown text, or a folder that can't be written to.
    """
    text, divided = whole(cfg, train, key)
    made_of = {
        **text.made_of(),
        "tokenizer": tokenizer_digest(tokenizer),
        "rows": [cut.body, cut.split],
        "eval_fraction": divided,
    }
    folder = cache_folder(cfg.cache_dir) / "prepared" / key_of(made_of)
    anchor = None if cfg.anchor_token is None else anchor_id(tokenizer, cfg.anchor_token)
    task = _Task(tokenizer, cut, divided, made_of, anchor)
    once_a_node(lambda: folder.is_dir() or _prepare(folder, text, task))
    journal = Journal.load(folder)
    if journal is None:
        raise DataError(f"data.cache_dir: {folder} isn't whole; remove it")
    part = "train" if train or divided is None else "eval"
    for line in journal.said if part == "train" else ():  # once of a source
        show(line)
    rows = journal.rows(folder, part, None if train else cfg.eval_documents)
    return Prepared(rows, journal.parts[part], folder, cfg)


@dataclass(frozen=True)
class _Task:
    tokenizer: Any
    cut: Cut
    divided: float | None
    made_of: dict
    anchor: int | None

    def part(self, document: Document) -> str:
        return "eval" if self.divided is not None and is_eval(document, self.divided) else "train"


def _prepare(folder: Path, text: Any, task: _Task) -> None:
    with _locked(folder):
        if folder.is_dir():  # by the process that had the lock
            return
        unfinished = folder.with_suffix(".unfinished")
        try:
            unfinished.mkdir(exist_ok=True)
            _written(unfinished, text, task)
        except DataError:
            shutil.rmtree(unfinished)
            raise
        except OSError as error:
            raise DataError(f"data.cache_dir: {unfinished}: {reason(error, folder.parent)}") from error
        unfinished.rename(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    if why := why_unwritable(folder.parent):
        raise DataError(f"data.cache_dir: {folder.parent} can't be written to ({why}); name another folder")
    lock = FileLock(folder.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        show(f"waiting for the process that prepares {folder}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _written(folder: Path, text: Any, task: _Task) -> None:
    journal = Journal.load(folder) or Journal(task.made_of)
    names = ("train", "eval") if task.divided is not None else ("train",)
    journal.parts = journal.parts or {name: Part() for name in names}
    journal.said = []
    text.say = journal.said.append
    writer, special = Writer(folder, journal), set(task.tokenizer.all_special_ids)
    encoder, parts = Encoder(task.tokenizer, task.cut.needed, task.anchor), deque()
    with all_cores(), remaining(text, journal.read) as documents:
        for ids, domain in encoder.with_domains(_noting(documents, task, parts)):
            writer.add(parts.popleft(), ids, task.cut(ids, special), encoder.unknown_in(ids), domain)
    writer.flush()
    if any(task.made_of[key] != value for key, value in text.made_of().items()):
        raise DataError(f"{text.where} has changed while it was read; start again")


def _noting(documents: Iterator[Document], task: _Task, parts: deque) -> Iterator[Document]:
    """`documents`, with the part of each added to `parts` as it goes by."""
    for document in documents:
        parts.append(task.part(document))
        yield document
