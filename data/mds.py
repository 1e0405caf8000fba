"""MDS shards through mosaicml-streaming."""

from collections.abc import Iterable

from cadenza.data.config import TextConfig
from cadenza.data.errors import DataError


def mds_documents(cfg: TextConfig, train: bool, seed: int) -> Iterable[str]:
    """The documents of an MDS data set (`data.remote`, `data.local`), shuffled as MosaicBERT's recipe does.

    Its 128 canonical nodes read equally many each: some documents come twice where 128 doesn't divide them.

    Raises:
        DataError: mosaicml-streaming isn't installed, or the data set isn't there.
    """
    from cadenza.data.sources import Texts

    try:
        from streaming import StreamingDataset  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        text = "data.source: mds needs mosaicml-streaming; make install brings it"
        raise DataError(text) from error
    if cfg.remote is None and cfg.local is None:
        raise DataError("data.source: mds needs data.remote or data.local, the folder of the shards")
    shuffle = {"shuffle": train, "shuffle_algo": "py1s", "shuffle_seed": seed, "num_canonical_nodes": 128}
    split = cfg.split if train else cfg.eval_split
    try:
        dataset = StreamingDataset(
            remote=cfg.remote, local=cfg.local, split=split, batch_size=1, **(shuffle if train else {})
        )
    except Exception as error:
        where = cfg.remote or cfg.local
        raise DataError(f"data.source: mds at {where}, split {split}, can't be read ({error})") from error
    return Texts(dataset, cfg.text_field)
