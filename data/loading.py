"""The `DataLoader` of text and of images."""

from collections.abc import Iterator
from typing import Any

import torch
from composer.utils import dist
from torch.utils.data import DataLoader, IterableDataset

from cadenza.data.draws import EpochSampler
from cadenza.data.errors import DataError


class StreamLoader(DataLoader):
    """Batches of a stream. Training would begin one pass after the other over a stream without a batch.

    Args:
        part: what the batches are for, as the error message says it.
    """

    def __init__(self, *args: Any, part: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.part = part

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        batches, empty = super().__iter__(), True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise DataError(
                f"data.source: the stream gives no batch of {self.batch_size} rows for {self.part} on rank "
                f"{dist.get_global_rank()}; take more documents, or a smaller batch"
            )


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
            raise DataError(f"data.source: {cfg.source} gives {counts} for {part}; a batch takes {needed}")
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
        return StreamLoader(dataset, part=part, **options)
    return DataLoader(dataset, sampler=sampler, **options)
