"""Loaders of images for Composer: arrays in memory, folders and Hub data sets as a `DataSpec`."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from composer.core import DataSpec
from composer.utils import dist
from torch import Tensor
from torch.utils.data import DataLoader

from cadenza.data.augment import uniform
from cadenza.data.errors import DataError
from cadenza.data.image_arrays import ImageArrays, moments, read_arrays, read_labels
from cadenza.data.image_config import ImageConfig
from cadenza.data.image_files import ImageFiles
from cadenza.data.pictures import pictures
from cadenza.data.sequences import EpochSampler

Images = ImageArrays | ImageFiles


def build_image_dataspec(
    cfg: ImageConfig, *, train: bool, batch_size: int, seed: int, judged: bool = False
) -> DataSpec:
    """Batches of this rank, to train on or to evaluate: `(images, labels)`.

    Images are (batch, channels, height, width) float32, normalized by the moments of ImageNet, or of the
    training images of digits and fashion_mnist; labels are (batch,) int64. Order and augmentation are pure
    functions of (seed, draw): the same with any number of workers and after a resume.

    Args:
        batch_size: images of this device's batch.
        seed: of the order, of the augmentation and of the choice of `train_images`.
        judged: training images taken as those of evaluation are: all once, in order, without augmentation.

    Raises:
        DataError: no such source, broken files, or fewer images than one batch of all devices.
    """
    cfg = replace(cfg, augmentation="none") if judged else cfg
    dataset, trained_on = _dataset(cfg, train, seed), train and not judged
    _check_size(dataset, cfg, trained_on, batch_size)
    loader = DataLoader(
        dataset,
        sampler=EpochSampler(dataset, trained_on, seed),
        batch_size=batch_size,
        collate_fn=_whole if cfg.in_memory else _stacked,
        drop_last=trained_on,
        num_workers=cfg.num_workers,
        persistent_workers=cfg.num_workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
    return DataSpec(loader)


def classes(cfg: ImageConfig) -> int:
    """The number of classes that training labels come from; errors as in `build_image_dataspec`."""
    if cfg.in_memory:
        return int(read_labels(cfg, train=True).max()) + 1
    return pictures(cfg, train=True).classes


def channels(cfg: ImageConfig) -> int:
    """The number of channels: 1 of digits and fashion_mnist, 3 of folders and Hub data sets."""
    return 1 if cfg.in_memory else 3


def _dataset(cfg: ImageConfig, train: bool, seed: int) -> Images:
    if not cfg.in_memory:
        source = pictures(cfg, train)
        return ImageFiles(source, _order(cfg, len(source), train, seed), cfg, train, seed)
    training = read_arrays(cfg, train=True)
    arrays = training if train else read_arrays(cfg, train=False)
    order = _order(cfg, len(arrays[1]), train, seed)
    return ImageArrays(arrays, order, moments(training[0]), cfg.augmentation if train else "none", seed)


def _order(cfg: ImageConfig, count: int, train: bool, seed: int) -> np.ndarray:
    """(length,) int64, the images to take: all, or as many as the config allows, chosen by chance.

    Those for evaluation are the same whatever the seed, so that runs compare.
    """
    limit = cfg.train_images if train else cfg.eval_images
    if limit is None:
        return np.arange(count)
    return uniform(seed if train else 0, range(count), 1)[:, 0].argsort(kind="stable")[:limit]


def _whole(batch: Any) -> Any:
    """What `ImageArrays` gives is a batch already."""
    return batch


def _stacked(examples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    images, labels = zip(*examples, strict=True)
    return torch.stack(images), torch.tensor(labels)


def _check_size(dataset: Any, cfg: ImageConfig, train: bool, batch_size: int) -> None:
    needed = batch_size * dist.get_world_size() if train else 1
    if len(dataset) >= needed:
        return
    part = "training" if train else "evaluation"
    raise DataError(
        f"data.source: {cfg.source} gives {len(dataset)} images for {part}; a batch takes {needed}"
    )
