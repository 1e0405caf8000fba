"""Augmentation of images by given random numbers, which are uniform in [0, 1): see `cadenza.data.draws`."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

TRIES = 10  # random crops, of which the first that fits is taken; if none fits, a crop of the middle
INCEPTION_COLUMNS = 2 * TRIES + 3  # areas, ratios, top, left, flip
CROP_FLIP_COLUMNS = 3  # top, left, flip


def flip(images: Tensor, random: np.ndarray) -> Tensor:
    """Images (batch, channels, height, width), mirrored sideways where `random` (batch,) is below 1/2."""
    flipped = torch.from_numpy(random < 0.5)
    return torch.where(flipped[:, None, None, None], images.flip(-1), images)


def crop(images: Tensor, random: np.ndarray) -> Tensor:
    """Images (batch, channels, height, width), shifted by up to an eighth of their width, filled with zeros.

    `random` (batch, 2) gives top and left of the crop within the padded image.
    """
    height, width = images.shape[-2:]
    border = max(1, width // 8)
    top, left = torch.from_numpy(random * (2 * border + 1)).long().unbind(1)
    rows = top[:, None] + torch.arange(height)  # (batch, height)
    columns = left[:, None] + torch.arange(width)  # (batch, width)
    batch = torch.arange(len(images))[:, None, None]
    padded = pad(images, [border] * 4)
    cropped = padded[batch, :, rows[:, :, None], columns[:, None, :]]  # (batch, height, width, channels)
    return cropped.permute(0, 3, 1, 2)


def crop_flip(images: Tensor, random: np.ndarray) -> Tensor:
    """`crop`, then `flip`; `random` (batch, 3) gives top, left and flip."""
    return flip(crop(images, random[:, :2]), random[:, 2])


def inception_box(height: int, width: int, random: np.ndarray) -> tuple[int, int, int, int]:
    """Top, left, height and width in pixels of a crop (Szegedy et al., arXiv 1409.4842, section 6).

    The crop has 8 to 100 % of the area and sides at 3:4 to 4:3, uniform in the ratio's logarithm, as in
    torchvision's RandomResizedCrop. If no try fits into the image: the largest such crop of the middle.

    Args:
        random: (INCEPTION_COLUMNS,).
    """
    areas = height * width * (0.08 + 0.92 * random[:TRIES])
    ratios = np.exp(math.log(3 / 4) + math.log(16 / 9) * random[TRIES : 2 * TRIES])
    heights, widths = np.rint(np.sqrt(areas / ratios)), np.rint(np.sqrt(areas * ratios))
    fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
    if not fits.any():
        crop_height, crop_width = min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3))
        return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width
    crop_height, crop_width = int(heights[fits.argmax()]), int(widths[fits.argmax()])
    top, left = int(random[-3] * (height - crop_height + 1)), int(random[-2] * (width - crop_width + 1))
    return top, left, crop_height, crop_width
