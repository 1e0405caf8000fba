"""Data sets of small images in memory: scikit-learn's digits, and files in MNIST's format."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cadenza.data.draws import Drawn, uniform
from cadenza.data.errors import DataError
from cadenza.data.images.augment import CROP_FLIP_COLUMNS, crop_flip, flip
from cadenza.data.images.config import ImageConfig

DEBIAN = "/usr/share/datasets/fashion-mnist"
PARTS = {True: "train", False: "t10k"}
UNSIGNED_BYTES = b"\0\0\x08"

Arrays = tuple[Tensor, Tensor]  # images (n, 1, height, width) uint8, labels (n,) int64


class ImageArrays(Drawn):
    """Images in memory, read by the batch and indexed by draw.

    A batch is `(images (batch, 1, height, width) float32, labels (batch,) int64)`, the images normalized.

    Args:
        arrays: the images and their labels.
        order: (length,) int64, the indices in `arrays` of the images that this data set has.
        moments: mean and standard deviation to normalize by.
        augmentation: `crop_flip`, `flip` or `none`.
        seed: the key of the hash that augmentation is computed from.
    """

    def __init__(
        self, arrays: Arrays, order: np.ndarray, moments: tuple[float, float], augmentation: str, seed: int
    ) -> None:
        self.images, self.labels = arrays
        self.order, self.moments = order, moments
        self.augmentation, self.seed = augmentation, seed

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, draw: int) -> Arrays:
        images, labels = self.__getitems__([draw])
        return images[0], labels[0]

    def __getitems__(self, draws: list[int]) -> Arrays:
        indices = torch.from_numpy(self.order[np.asarray(draws) % len(self)])
        mean, std = self.moments
        return (self._augmented(self.images[indices], draws).float() - mean) / std, self.labels[indices]

    def _augmented(self, images: Tensor, draws: list[int]) -> Tensor:
        if self.augmentation == "none":
            return images
        random = uniform(self.seed, draws, CROP_FLIP_COLUMNS)
        return crop_flip(images, random) if self.augmentation == "crop_flip" else flip(images, random[:, 2])


def moments(images: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of all pixels, computed exactly from the counts of the 256 values."""
    share = torch.bincount(images.flatten(), minlength=256).double() / max(images.numel(), 1)
    values = torch.arange(256).double()
    mean = float(share @ values)
    std = math.sqrt(float(share @ (values - mean) ** 2))
    return mean, std or 1.0  # images of a single colour become zeros


def read_arrays(cfg: ImageConfig, train: bool) -> Arrays:
    """The training or the evaluation images of `digits` or `fashion_mnist`, not normalized.

    Raises:
        DataError: a file is missing or broken, or scikit-learn isn't installed.
    """
    if cfg.source == "digits":
        return _digits(train)
    images = _read_idx(cfg, f"{PARTS[train]}-images-idx3-ubyte.gz", 3)
    labels = read_labels(cfg, train)
    if len(images) != len(labels):
        counts = f"{len(images)} images and {len(labels)} labels"
        raise DataError(f"data.root: {_folder(cfg)} has {counts} of {PARTS[train]}")
    return images[:, None], labels


def read_labels(cfg: ImageConfig, train: bool) -> Tensor:
    """(n,) int64, the labels that `read_arrays` returns; errors as there."""
    if cfg.source == "digits":
        return _digits(train)[1]
    return _read_idx(cfg, f"{PARTS[train]}-labels-idx1-ubyte.gz", 1).long()


def _digits(train: bool) -> Arrays:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError("data.source: digits needs scikit-learn: pip install scikit-learn") from error
    pixels, target = load_digits(return_X_y=True)
    images, labels = torch.from_numpy(pixels).view(-1, 1, 8, 8), torch.from_numpy(target)
    order = np.random.RandomState(0).permutation(len(labels))  # a generator that NumPy promises not to change
    evaluation = len(order) // 5
    chosen = torch.from_numpy(np.sort(order[evaluation:] if train else order[:evaluation]))
    return images[chosen].to(torch.uint8), labels[chosen].long()


def _folder(cfg: ImageConfig) -> Path:
    return Path(DEBIAN if cfg.root is None else cfg.root).expanduser()


def _read_idx(cfg: ImageConfig, name: str, dimensions: int) -> Tensor:
    """The content of a gzipped IDX file: a magic number, the sizes as big-endian int32, unsigned bytes."""
    path = _folder(cfg) / name
    if not path.is_file():
        raise DataError(
            f"data.source: {cfg.source} has no file {path}; install Debian's package dataset-fashion-mnist, "
            "or set data.root to a folder with train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz and "
            "the same two as t10k-"
        )
    try:
        with gzip.open(path) as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"data.root: {path} is not a whole gzip file ({error})") from error
    start = 4 + 4 * dimensions
    sizes = np.frombuffer(content[4:start], dtype=">i4").tolist() if len(content) >= start else []
    magic = UNSIGNED_BYTES + bytes([dimensions])
    if content[:4] != magic or 0 in sizes or len(content) != start + math.prod(sizes):
        raise DataError(f"data.root: {path} is not an IDX file of bytes in {dimensions} dimensions, or empty")
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8, offset=start).copy()).reshape(sizes)
