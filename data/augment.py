"""Augmentation of images by numbers that are handed in: uniform ones, from the hash of (seed, draw)."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from cadenza.data.masking import _scramble

TRIES = 10  # crops that are drawn before the middle of the image is taken
INCEPTION_COLUMNS = 2 * TRIES + 3  # areas, ratios, top, left, flip
CROP_FLIP_COLUMNS = 3  # top, left, flip


def uniform(seed: int, draws: Sequence[int] | np.ndarray, columns: int) -> np.ndarray:
    """(len(draws), columns) float64 in [0, 1), a pure function of (seed, draw, column)."""
    key = _scramble(np.array([seed], dtype=np.uint64))
    rows = _scramble(key ^ _scramble(np.asarray(draws, dtype=np.uint64)))
    cells = _scramble(rows[:, None] ^ np.arange(columns, dtype=np.uint64))
    return (cells >> np.uint64(11)).astype(np.float64) * 2.0**-53


def flip(images: Tensor, at: np.ndarray) -> Tensor:
    """Images (batch, channels, height, width), mirrored left to right where `at` (batch,) is below 1/2."""
    chosen = torch.from_numpy(at < 0.5)
    return torch.where(chosen[:, None, None, None], images.flip(-1), images)


def crop(images: Tensor, at: np.ndarray) -> Tensor:
    """Images (batch, channels, height, width), shifted by up to an eighth of their width; zeros come in.

    `at` (batch, 2) in [0, 1) is the crop's top and left within the padded image.
    """
    height, width = images.shape[-2:]
    border = max(1, width // 8)
    top, left = torch.from_numpy(at * (2 * border + 1)).long().unbind(1)
    rows = top[:, None] + torch.arange(height)
    columns = left[:, None] + torch.arange(width)
    batch = torch.arange(len(images))[:, None, None]
    padded = pad(images, [border] * 4)
    return padded[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def crop_flip(images: Tensor, at: np.ndarray) -> Tensor:
    """`crop`, then `flip`; `at` (batch, 3) is top, left and flip, in [0, 1)."""
    return flip(crop(images, at[:, :2]), at[:, 2])


def inception_box(height: int, width: int, at: np.ndarray) -> tuple[int, int, int, int]:
    """Top, left, height and width in pixels of a crop (Szegedy et al., arXiv 1409.4842, section 6).

    It has 8 to 100 % of the area and sides at 3:4 to 4:3, uniform in the ratio's logarithm, as torchvision's
    RandomResizedCrop draws it. Where no try fits into the image, the largest such crop of the middle.

    Args:
        at: (INCEPTION_COLUMNS,) in [0, 1).
    """
    areas = height * width * (0.08 + 0.92 * at[:TRIES])
    ratios = np.exp(math.log(3 / 4) + math.log(16 / 9) * at[TRIES : 2 * TRIES])
    heights, widths = np.rint(np.sqrt(areas / ratios)), np.rint(np.sqrt(areas * ratios))
    fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
    if not fits.any():
        tall, wide = min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3))
        return (height - tall) // 2, (width - wide) // 2, tall, wide
    tall, wide = int(heights[fits.argmax()]), int(widths[fits.argmax()])
    return int(at[-3] * (height - tall + 1)), int(at[-2] * (width - wide + 1)), tall, wide
