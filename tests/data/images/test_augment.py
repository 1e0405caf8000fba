"""Augmentation: what is drawn, against one image at a time."""

import numpy as np
import pytest
import torch

from cadenza.data.draws import uniform
from cadenza.data.images.augment import (
    CROP_FLIP_COLUMNS,
    INCEPTION_COLUMNS,
    crop,
    crop_flip,
    flip,
    inception_box,
)


def test_crop_flip_against_one_image_at_a_time():
    images = torch.randint(0, 256, (200, 3, 16, 24), dtype=torch.uint8)
    at = uniform(1, range(200), 3)
    for image, result, (top, left, mirrored) in zip(images, crop_flip(images, at), at, strict=True):
        padded = np.pad(image.numpy(), ((0, 0), (3, 3), (3, 3)))
        y, x = int(top * 7), int(left * 7)
        expected = padded[:, y : y + 16, x : x + 24]
        expected = expected[:, :, ::-1] if mirrored < 0.5 else expected
        assert np.array_equal(result.numpy(), expected)


def test_crops_and_flips_take_every_value_equally_often():
    at = uniform(2, range(4000), 3)
    image = torch.arange(1, 65, dtype=torch.uint8).view(1, 1, 8, 8).expand(4000, 1, 8, 8)
    views = crop(image, at[:, :2])
    shifts = views[:, 0, 4, 4].bincount()
    assert len(shifts[shifts > 0]) == 9, "three places each way: a border of one pixel"
    assert float((shifts[shifts > 0] / 4000 - 1 / 9).abs().max()) < 0.02
    turned = (flip(image, at[:, 2]) != image).flatten(1).any(1)
    assert float(turned.float().mean()) == pytest.approx(0.5, abs=0.03)


def test_a_flip_is_for_what_lies_below_a_half():
    images = torch.arange(4.0).view(1, 1, 1, 4).expand(3, 1, 1, 4)
    turned = flip(images, np.array([0.5, np.nextafter(0.5, 0), 0.0]))
    assert turned[:, 0, 0, 0].tolist() == [0, 3, 3]


@pytest.mark.parametrize(("width", "border"), [(4, 1), (7, 1), (15, 1), (16, 2), (72, 9)])
def test_crops_go_to_the_last_pixel_of_the_border(width, border):
    images = torch.ones(2, 1, 5, width)
    first, last = crop(images, np.array([[0, 0], [1 - 2**-53, 1 - 2**-53]]))
    rows, columns = torch.arange(5), torch.arange(width)
    assert torch.equal(first[0], ((rows >= border)[:, None] & (columns >= border)).float())
    assert torch.equal(last[0], ((rows < 5 - border)[:, None] & (columns < width - border)).float())


def plain_box(height, width, at):
    """One try after the other, as the paper and torchvision have it."""
    for area, ratio in zip(at[:10], at[10:20], strict=True):
        pixels, sides = height * width * (0.08 + 0.92 * area), 3 / 4 * (16 / 9) ** ratio
        tall, wide = round((pixels / sides) ** 0.5), round((pixels * sides) ** 0.5)
        if 1 <= tall <= height and 1 <= wide <= width:
            return int(at[20] * (height - tall + 1)), int(at[21] * (width - wide + 1)), tall, wide
    if height > 4 / 3 * width:
        tall, wide = round(4 / 3 * width), width
    elif width > 4 / 3 * height:
        tall, wide = height, round(4 / 3 * height)
    else:
        tall, wide = height, width
    return (height - tall) // 2, (width - wide) // 2, tall, wide


SIZES = [
    (300, 300),
    (37, 53),
    (60, 40),
    (20, 28),
    (12, 33),
    (31, 9),
    (10, 1000),
    (1000, 9),
    (2, 1),
    (1, 2),
    (1, 1),
]


@pytest.mark.parametrize("size", SIZES)
def test_inception_against_one_try_at_a_time(size):
    assert (INCEPTION_COLUMNS, CROP_FLIP_COLUMNS) == (23, 3)
    for at in uniform(4, range(200), 23):
        assert inception_box(*size, at) == plain_box(*size, at)


@pytest.mark.parametrize("fitting", [0, 1, 9, 10])
def test_ten_tries_are_made(fitting):
    """Of an image of 30 x 10 only small areas fit: the try of that number, or none."""
    at = np.full(23, 1 - 2**-53)
    at[10:20] = 0.5
    if fitting < 10:
        at[fitting] = 0.1
    expected = (23, 3, 7, 7) if fitting < 10 else (8, 0, 13, 10)
    assert inception_box(30, 10, at) == expected == plain_box(30, 10, at)


def test_the_largest_crop_and_the_last_pixel():
    """The whole image is a crop; a smaller one may end at the last pixel of both sides."""
    largest = np.full(23, 0.5)
    largest[0] = 1 - 2**-53
    assert inception_box(300, 300, largest) == (0, 0, 300, 300)
    last = np.full(23, 0.5)
    last[-3:] = 1 - 2**-53
    top, left, tall, wide = inception_box(300, 300, last)
    assert (top + tall, left + wide) == (300, 300)
    assert tall < 300


@pytest.mark.parametrize(("size", "box"), [((2, 1), (1, 0, 1, 1)), ((1, 2), (0, 1, 1, 1))])
def test_a_crop_of_one_pixel_fits(size, box):
    """And no crop of none: the first tries, of the least area, round to no pixel."""
    at = np.full(23, 0.5)
    at[0], at[-3:] = 0.0, 0.9
    at[1:10] = 0.6
    assert inception_box(*size, at) == box == plain_box(*size, at)


def test_inception_draws_what_it_says():
    boxes = np.array([inception_box(300, 300, at) for at in uniform(3, range(4000), INCEPTION_COLUMNS)])
    top, left, tall, wide = boxes.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + tall <= 300).all()
    assert (left + wide <= 300).all()
    area, ratio = tall * wide / 90_000, wide / tall
    assert 0.078 < area.min() < 0.09
    assert area.max() > 0.95
    assert (0.74 < ratio.min() < 0.77, 1.3 < ratio.max() < 1.35) == (True, True)
    assert float(np.log(ratio).mean()) == pytest.approx(0, abs=0.02)
    assert len(np.unique(top)) > 150, "places are drawn as well"
    assert len(np.unique(left)) > 150
    small = area < 0.5
    assert float((top / (300 - tall + 1))[small].mean()) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("size", "box"), [((10, 1000), (0, 493, 10, 13)), ((1000, 9), (494, 0, 12, 9)), ((1, 1), (0, 0, 1, 1))]
)
def test_images_that_no_crop_fits_give_their_middle(size, box):
    boxes = {inception_box(*size, at) for at in uniform(3, range(50), INCEPTION_COLUMNS)}
    assert box in boxes
