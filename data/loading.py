"""The `DataLoader` of text and of images."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from composer.utils import dist
from torch.utils.data import DataLoader, IterableDataset
from tqdm.auto import tqdm

from cadenza.data.draws import EpochSampler
from cadenza.data.errors import DataError
from cadenza.data.growth import GrowingLoader
from cadenza.data.resuming import Resumable


class StreamLoader(DataLoader):
    """Batches of a stream, which goes on behind a checkpoint's batches.

    Training would begin one pass after the other over a stream without a batch.

    Args:
        stream: a `TokenizedStream`.
        part: what the batches are for, as the error message says it.
    """

    def __init__(self, stream: Any, part: str, **options: Any) -> None:
        resumable = Resumable(stream, max(options["num_workers"], 1), options["batch_size"])
        super().__init__(resumable, **options)
        self.part = part

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        dataset: Any = self.dataset
        progress = dataset.begin()
        batches = super().__iter__()
        for batch in _shown(islice(batches, progress.drop), progress.drop, dataset.processes):
            progress.note(*batch.pop("place"))
        for batch in batches:
            progress.note(*batch.pop("place"))
            yield batch
        if not progress.taken:
            del batches
            self._iterator = None  # ends the processes now, and not when the error is garbage
            raise DataError(
                f"data.source: the stream gives no batch of {self.batch_size} rows for {self.part} on rank "
                f"{dist.get_global_rank()}; take more documents, or a smaller batch"
            )


def _shown(batches: Iterator[Any], count: int, processes: int) -> Iterator[Any]:
    """`batches`, which are made again, with a progress bar if they are more than one of each process."""
    off = count < processes or dist.get_global_rank() != 0
    return iter(tqdm(batches, "making earlier batches again", total=count, unit="ba", disable=off))


def data_loader(
    cfg: Any, dataset: Any, counts: str | None, collate: Any, train: bool, batch_size: int, seed: int
) -> DataLoader:
    """Batches of this rank, in pinned memory where there is a GPU; workers stay alive between epochs.

    Args:
        cfg: a `TextConfig` or an `ImageConfig`.
        counts: the size of a finite data set in words, for the error message; None: a stream.
        train: whether to shuffle and to drop a last batch that isn't full.

    Raises:
        DataError: fewer examples than one batch of all devices; in evaluation, none. Of a stream it is raised
            at the end of a pass.
    """
    sampler, part = None, "training" if train else "evaluation"
    if counts is not None:
        needed = batch_size * dist.get_world_size() if train else 1
        if len(dataset) < needed:
            names = ", ".join(getattr(cfg, "names", [cfg.source]))
            raise DataError(f"data.source: {names} gives {counts} for {part}; a batch takes {needed}")
        sampler = EpochSampler(dataset, train, seed)
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "collate_fn": collate,
        "drop_last": train,
        "num_workers": cfg.num_workers,
        "persistent_workers": cfg.num_workers > 0,
        "pin_memory": torch.cuda.is_available(),
        "generator": torch.Generator().manual_seed(seed),  # a loader takes none of the model's random numbers
    }
    if isinstance(dataset, IterableDataset):
        return StreamLoader(dataset, part, **options)
    return (GrowingLoader if train else DataLoader)(dataset, sampler=sampler, **options)
