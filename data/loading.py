"""The `DataLoader` of text and of images."""

from typing import Any

import torch
from composer.utils import dist
from torch.utils.data import DataLoader

from cadenza.data.draws import EpochSampler
from cadenza.data.errors import DataError


def data_loader(
    cfg: Any, dataset: Any, counts: str | None, collate: Any, train: bool, batch_size: int, seed: int
) -> DataLoader:
    """Batches of this rank, in pinned memory where there is a GPU; workers stay alive between epochs.

    Args:
        cfg: a `TextConfig` or an `ImageConfig`.
        counts: the size of a finite data set in words, for the error message; None: a stream.
        train: whether to shuffle and to drop a last batch that isn't full.

    Raises:
        DataError: fewer examples than one batch of all devices; in evaluation, none.
    """
    sampler = None
    if counts is not None:
        needed = batch_size * dist.get_world_size() if train else 1
        if len(dataset) < needed:
            part = "training" if train else "evaluation"
            raise DataError(f"data.source: {cfg.source} gives {counts} for {part}; a batch takes {needed}")
        sampler = EpochSampler(dataset, train, seed)
    return DataLoader(
        dataset,
        sampler=sampler,
        batch_size=batch_size,
        collate_fn=collate,
        drop_last=train,
        num_workers=cfg.num_workers,
        persistent_workers=cfg.num_workers > 0,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(seed),  # a loader takes none of the model's random numbers
    )
