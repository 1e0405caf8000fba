"""Documents by the name of their source: lists of finite sources, streams of others."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from cadenza.data.errors import DataError
from cadenza.data.text.config import TextConfig
from cadenza.data.text.encoding import Document
from cadenza.data.text.finite import Finite, is_eval, is_finite
from cadenza.data.text.hub_sets import HubDocuments, hub_stream
from cadenza.data.text.marks.domains import content
from cadenza.data.text.mds import mds_documents, mds_texts
from cadenza.data.text.mixed import key_of


def documents(cfg: TextConfig, train: bool, seed: int = 0) -> list[Document] | Iterable[Document]:
    """The documents to train on or to evaluate: a list, or a stream for Hub data sets and MDS.

    Finite sources are split by a hash of each document. Each rank and worker reads its own part of a stream.

    Raises:
        DataError: no such source, not reachable, or no text in it.
    """
    found = each_document(cfg, train, seed)
    return found if streamed(cfg, train) else list(found)


def each_document(cfg: TextConfig, train: bool, seed: int = 0) -> Iterable[Document]:
    """The same, one after another; those of a finite source, too."""
    if streamed(cfg, train):
        return stream(cfg, train, seed)
    parts = cfg.parts()[:1] if not train and cfg.eval_source is not None else cfg.parts()
    found = (
        document
        for index, (part, _) in enumerate(parts)
        for document in _of_part(part, train, key=key_of(cfg, index))
    )
    return islice(found, None if train else cfg.eval_documents)


def train_texts(cfg: TextConfig, limit: int = 100_000) -> Iterator[Any]:
    """The first `limit` training documents: the text that a tokenizer is trained on.

    Of a mixture, each source gives as large a part of them as of the rows.
    """
    parts = cfg.parts()
    if any(part.ids_field is not None for part, _ in parts):
        raise DataError("data.ids_field: ids have no text to train a tokenizer on; name the one they are of")
    for index, (part, share) in enumerate(parts):
        finite = not streamed(part, True)
        found = _of_part(part, True, _nothing, key_of(cfg, index)) if finite else _of_all_ranks(part)
        yield from map(content, islice(found, max(round(share * limit), 1)))


def train_texts_made_of(cfg: TextConfig) -> dict[str, Any] | None:
    """What `train_texts` depends on; None of a stream."""
    if streamed(cfg, True):
        return None
    parts = enumerate(cfg.parts())
    sources = [(*whole(part, True, key_of(cfg, index)), share) for index, (part, share) in parts]
    return {"sources": [[source.made_of(), divided, share] for source, divided, share in sources]}


def _of_all_ranks(cfg: TextConfig) -> Iterable[Document]:
    """A stream that isn't divided among ranks: the same text whatever their number."""
    return mds_texts(cfg) if cfg.source == "mds" else hub_stream(cfg, True, 0, whole=True)


def streamed(cfg: TextConfig, train: bool) -> bool:
    """Whether the documents are a stream.

    Raises:
        DataError: an option needs a source that is read as a whole.
    """
    if not train and cfg.eval_source is not None:
        return False
    sources = [(part.source, is_finite(part.source) or _downloaded(part)) for part, _ in cfg.parts()]
    wanting = "data.mixture" if cfg.mixture else "data.deduplicate" if cfg.deduplicate else None
    for source, finite in sources:
        if wanting and not finite:
            raise DataError(f"{wanting} needs a source that is read as a whole; {source} is a stream")
    return not sources[0][1]


def _downloaded(cfg: TextConfig) -> bool:
    return not cfg.stream and cfg.source != "mds"


def stream(cfg: TextConfig, train: bool, seed: int) -> Iterable[Document]:
    """The documents of a Hub data set or of MDS."""
    return (mds_documents if cfg.source == "mds" else hub_stream)(cfg, train, seed)


def whole(
    cfg: TextConfig, train: bool, key: str = "data.source"
) -> tuple[Finite | HubDocuments, float | None]:
    """The source that the documents of a config without a mixture are read from, as a whole.

    Error messages begin with `key`.

    With it comes the share of its documents that is for evaluation; None: all of them are for one purpose.
    """
    if not train and cfg.eval_source is not None:
        return Finite(cfg.eval_source, cfg, "data.eval_source"), None
    if not is_finite(cfg.source):
        return HubDocuments(cfg, train), None
    return Finite(cfg.source, cfg, key), None if cfg.eval_source is not None else cfg.eval_fraction


def _of_part(cfg: TextConfig, train: bool, say: Any = None, key: str = "data.source") -> Iterator[Document]:
    """The documents of a config without a mixture, whose source is read as a whole."""
    found, divided = whole(cfg, train, key)
    found.say = say
    if divided is None:
        return iter(found)
    return (document for document in found if is_eval(document, divided) is not train)


def _nothing(line: str) -> None:
    """Rows that are left out are told of when they are prepared."""
