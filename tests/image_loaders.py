"""Loaders of small sets of images, and what they give."""

import gzip
import struct

import pytest
import torch

from cadenza.data import ImageConfig, build_image_dataspec

BUILT = []  # what the running test has built


def write_idx(path, array):
    sizes = struct.pack(f">{array.ndim}i", *array.shape)
    with gzip.open(path, "wb") as file:
        file.write(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())


def build(values, train=True, batch_size=4, seed=5, **more):
    spec = build_image_dataspec(ImageConfig(**values, **more), train=train, batch_size=batch_size, seed=seed)
    BUILT.append(spec)
    return spec


@pytest.fixture(autouse=True)
def end_workers():
    """End the workers of a test's loaders; left to the garbage collector, each would take five seconds."""
    yield
    for spec in BUILT:
        spec.dataloader._iterator = None
    BUILT.clear()


def batches(spec, epoch=0):
    spec.dataloader.sampler.set_epoch(epoch)
    return list(spec.dataloader)


def pixels(spec, epoch=0):
    return torch.cat([images for images, _ in batches(spec, epoch)])


def same(one, other):
    pairs = zip(one, other, strict=True)
    return all(a[0].equal(b[0]) and a[1].equal(b[1]) for a, b in pairs)
