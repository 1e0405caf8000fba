"""MDS shards through mosaicml-streaming."""

from collections.abc import Callable, Iterable
from typing import Any

from composer.utils import dist

from cadenza.data.errors import DataError
from cadenza.data.text.config import TextConfig
from cadenza.data.text.encoding import Document
from cadenza.data.text.rows import Texts


def mds_documents(cfg: TextConfig, train: bool, seed: int) -> Iterable[Document]:
    """The documents of an MDS data set (`data.remote`, `data.local`), shuffled as MosaicBERT's recipe does.

    Each of its 128 canonical nodes reads the same number of documents. Where 128 doesn't divide the number of
    documents, some come twice. All ranks call it.

    Raises:
        DataError: mosaicml-streaming isn't installed, or the data set isn't there.
    """
    split = cfg.split if train else cfg.eval_split
    shuffle = {"shuffle": train, "shuffle_algo": "py1s", "shuffle_seed": seed, "num_canonical_nodes": 128}
    options = {"remote": cfg.remote, "local": cfg.local, "batch_size": 1, **(shuffle if train else {})}
    return _opened(cfg, split, lambda streaming: streaming.StreamingDataset(split=split, **options))


def mds_texts(cfg: TextConfig) -> Iterable[Document]:
    """All documents to train on, in their order; one rank alone may call it.

    Raises:
        DataError: as in `mds_documents`; of several ranks, shards that would be downloaded.
    """
    if dist.get_world_size() == 1:
        return mds_documents(cfg, True, 0)
    if cfg.local is None or cfg.remote is not None:
        right = "name a tokenizer, or set data.local alone, to shards that are on the disk"
        raise DataError(
            f"tokenizer.name: a tokenizer is trained on one rank, which can't download mds; {right}"
        )
    return _opened(cfg, cfg.split, lambda streaming: streaming.LocalDataset(cfg.local, cfg.split))


def _opened(cfg: TextConfig, split: str, make: Callable[[Any], Any]) -> Texts:
    try:
        import streaming  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DataError("data.source: mds needs mosaicml-streaming; make install brings it") from error
    if cfg.remote is None and cfg.local is None:
        raise DataError("data.source: mds needs data.remote or data.local, the folder of the shards")
    try:
        return Texts(make(streaming), cfg)
    except Exception as error:
        folder = cfg.remote or cfg.local
        raise DataError(f"data.source: mds at {folder}, split {split}, can't be read ({error})") from error
