"""Finite sources: files, folders, globs and `python_docs`, read document by document."""

import hashlib
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import IO, Any

from cadenza.data.errors import DataError, one_line
from cadenza.data.text import python_docs
from cadenza.data.text.bad_rows import kept
from cadenza.data.text.config import TextConfig
from cadenza.data.text.encoding import Document
from cadenza.data.text.files.documents import documents_of, no_fields
from cadenza.data.text.files.paths import each_once, is_local, paths_of
from cadenza.data.text.marks.domains import content
from cadenza.data.text.rows import without_anchor

STREAMS = ("c4", "mds")  # names that never mean a file or a folder here
DOCS = "python_docs"
OPTIONS = ("text_field", "ids_field", "split_text", "encoding", "on_bad_row", "deduplicate")  # of reading
LATER = ("domain_field", "anchor_token")  # which change what is read only where they are set


def is_finite(source: str | list[str]) -> bool:
    """Whether `source` is read as a whole: files, python_docs, and lists."""
    return isinstance(source, list) or source == DOCS or (source not in STREAMS and is_local(source))


class Finite:
    """The documents of a finite source; each iteration reads them anew, one after another.

    Args:
        source: the value of `data.source` or `data.eval_source`.
        cfg: how documents are read.
        key: the key in the recipe, with which error messages begin.
        say: is handed the line about bad rows; None: it is printed.

    Raises:
        DataError: a name that means no finite source; while iterating: what can't be read, or no text at all.
    """

    def __init__(
        self, source: str | list[str], cfg: TextConfig, key: str, say: Callable[[str], Any] | None = None
    ) -> None:
        self.names, self.cfg, self.key, self.say = (
            [source] if isinstance(source, str) else source,
            cfg,
            key,
            say,
        )
        self.where = f"{key}: {', '.join(self.names)}"
        self.passed, self.open = 0, None
        for name in self.names:
            if not is_finite(name):
                raise DataError(f"{key}: {name} is neither python_docs nor a file, a folder or a glob")

    @cached_property
    def files(self) -> list[str]:
        """The path of each file; `python_docs` stands for itself."""
        return each_once(
            self.names, self.key, lambda name: [DOCS] if name == DOCS else paths_of(name, self.key)
        )

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(map(_size, self.files))

    @property
    def position(self) -> int:
        """The bytes that were read of them."""
        try:
            return self.passed + (self.open.tell() if self.open else 0)
        except ValueError:  # the file is closed: the next one isn't open yet
            return self.passed

    def made_of(self) -> dict[str, Any]:
        """What the documents depend on: path, size and time of each file, and the options of reading."""
        files = [_state(path, self.key) for path in self.files]
        return {"files": files, "options": options_of(self.cfg)}

    def __iter__(self) -> Iterator[Document]:
        found = kept(self._rows(), self.cfg.on_bad_row == "skip", self.where, self.say)
        return content_of(distinct(found) if self.cfg.deduplicate else found, self.where)

    def _rows(self) -> Iterator[Document | DataError]:
        self.passed, self.open = 0, None
        for path in self.files:
            if path == DOCS:
                if self.cfg.ids_field is not None:
                    raise DataError(f"data.ids_field: {DOCS} holds text alone; name files with token ids")
                if self.cfg.domain_field is not None:
                    raise no_fields(DOCS)
                yield from (without_anchor(text, self.cfg, DOCS) for text in python_docs.python_docs())
                continue
            yield from documents_of(path, self.cfg, self.key, self._watch)
            self.passed, self.open = self.passed + _size(path), None

    def _watch(self, file: IO[bytes]) -> None:
        self.open = file


def options_of(cfg: TextConfig) -> dict[str, Any]:
    """The options that change what is read; `LATER` ones that are unset leave keys of caches as they were."""
    chosen = [name for name in LATER if getattr(cfg, name) is not None]
    return {name: getattr(cfg, name) for name in (*OPTIONS, *chosen)}


def content_of(documents: Iterable[Document], where: str) -> Iterator[Document]:
    """`documents`; raises `DataError` behind the last one if there is nothing in any of them."""
    empty = True
    for document in documents:
        inside = content(document)
        empty = empty and not (inside.strip() if isinstance(inside, str) else len(inside))
        yield document
    if empty:
        raise DataError(f"{where} holds no text")


def is_eval(document: Document, fraction: float) -> bool:
    """Whether a document is one of the share `fraction` that is for evaluation: by a hash of its content.

    So the split depends neither on the order nor on the machine, and equal documents are on the same side.
    """
    return zlib.crc32(_bytes(document)) < fraction * 2**32


def _bytes(document: Document) -> bytes:
    inside = content(document)
    return inside.encode() if isinstance(inside, str) else inside.tobytes()


def distinct(documents: Iterable[Document]) -> Iterator[Document]:
    """Without those that are equal to an earlier one; of each, 16 bytes are kept in memory."""
    seen: set[bytes] = set()
    for document in documents:
        found = digest(document)
        if found not in seen:
            seen.add(found)
            yield document


def digest(document: Document) -> bytes:
    """16 bytes: those of equal documents are equal."""
    return hashlib.blake2b(_bytes(document), digest_size=16).digest()


def _size(path: str) -> int:
    return 0 if path == DOCS else os.path.getsize(path)


def _state(path: str, key: str) -> list[Any]:
    if path == DOCS:
        return [DOCS, python_docs.digest()]
    try:
        stat = os.stat(path)
    except OSError as error:
        raise DataError(f"{key}: {path} can't be read ({one_line(error)})") from error
    return [os.path.realpath(path), stat.st_size, stat.st_mtime_ns]
