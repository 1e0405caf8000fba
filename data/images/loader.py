"""Loaders of images for Composer, as a `DataSpec`: arrays in memory, folders and Hub data sets."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from composer.core import DataSpec
from torch import Tensor

from cadenza.data.draws import uniform
from cadenza.data.errors import DataError
from cadenza.data.images.arrays import ImageArrays, moments, read_arrays, read_labels
from cadenza.data.images.config import ImageConfig
from cadenza.data.images.files import ImageFiles
from cadenza.data.images.pictures import pictures
from cadenza.data.loading import data_loader

Images = ImageArrays | ImageFiles


def build_image_dataspec(
    cfg: ImageConfig, *, train: bool, batch_size: int, seed: int, judged: bool = False
) -> DataSpec:
    """Batches of this rank, to train on or to evaluate: `(images, labels)`.

    Images are (batch, channels, height, width) float32, normalized by the moments of ImageNet, or of the
    training images of digits and fashion_mnist; labels are (batch,) int64. Order and augmentation are pure
    functions of (seed, draw): the same with any number of workers and after a resume.

    Args:
        batch_size: images in a batch of this device.
        seed: of the order, of the augmentation and of the choice of `train_images`.
        judged: training images to evaluate: all once, in order, without augmentation.

    Raises:
        DataError: no such source, broken files, or fewer images than one batch of all devices.
    """
    cfg = replace(cfg, augmentation="none") if judged else cfg
    dataset, collate = _dataset(cfg, train, seed), _whole if cfg.in_memory else _stacked
    counts = f"{len(dataset)} images"
    return DataSpec(data_loader(cfg, dataset, counts, collate, train and not judged, batch_size, seed))


def classes(cfg: ImageConfig) -> int:
    """The number of classes of the training images, at least 2; errors as in `build_image_dataspec`."""
    found = int(read_labels(cfg, train=True).max()) + 1 if cfg.in_memory else pictures(cfg, True).classes
    if found == 1:  # none: reading the images says why
        raise DataError(f"data.source: {cfg.source} has {found} class; a classifier needs at least 2")
    return found


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
    """(length,) int64, the indices of the images to take: all, or a random choice within the config's limit.

    The choice for evaluation doesn't depend on the seed, so that runs can be compared.
    """
    limit = cfg.train_images if train else cfg.eval_images
    if limit is None:
        return np.arange(count)
    return uniform(seed if train else 0, range(count), 1)[:, 0].argsort(kind="stable")[:limit]


def _whole(batch: Any) -> Any:
    """The batch as it is: `ImageArrays` returns whole batches."""
    return batch


def _stacked(examples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    images, labels = zip(*examples, strict=True)
    return torch.stack(images), torch.tensor(labels)
