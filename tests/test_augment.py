"""Augmentation: what is drawn, against one image at a time."""

import numpy as np
import pytest
import torch

from cadenza.data.augment import INCEPTION_COLUMNS, crop, crop_flip, flip, inception_box, uniform


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
