"""MDS shards through mosaicml-streaming."""

from collections.abc import Iterable

from cadenza.data.errors import DataError
from cadenza.data.text.config import TextConfig
from cadenza.data.text.encoding import Document
from cadenza.data.text.rows import Texts


def mds_documents(cfg: TextConfig, train: bool, seed: int) -> Iterable[Document]:
    """The documents of an MDS data set (`data.remote`, `data.local`), shuffled as MosaicBERT's recipe does.

    Each of its 128 canonical nodes reads the same number of documents. Where 128 doesn't divide the number of
    documents, some come twice.

    Raises:
        DataError: mosaicml-streaming isn't installed, or the data set isn't there.
    """
    try:
        from streaming import StreamingDataset  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DataError("data.source: mds needs mosaicml-streaming; make install brings it") from error
    if cfg.remote is None and cfg.local is None:
        raise DataError("data.source: mds needs data.remote or data.local, the folder of the shards")
    shuffle = {"shuffle": train, "shuffle_algo": "py1s", "shuffle_seed": seed, "num_canonical_nodes": 128}
    split = cfg.split if train else cfg.eval_split
    try:
        dataset = StreamingDataset(
            remote=cfg.remote, local=cfg.local, split=split, batch_size=1, **(shuffle if train else {})
        )
    except Exception as error:
        folder = cfg.remote or cfg.local
        raise DataError(f"data.source: mds at {folder}, split {split}, can't be read ({error})") from error
    return Texts(dataset, cfg)
