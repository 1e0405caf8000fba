"""Small sets of images, a stand-in for the Hub's, their loaders, and what these give."""

import gzip
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from cadenza.data import ImageConfig, build_image_dataspec, hub

BUILT = []  # what the running test has built


def write_idx(path, array):
    sizes = struct.pack(f">{array.ndim}i", *array.shape)
    with gzip.open(path, "wb") as file:
        file.write(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())


@pytest.fixture
def idx(tmp_path):
    """Four files in fashion_mnist's format: image i has the label i % 3, and both in its first row."""
    draw = np.random.RandomState(3)
    for part, count in (("train", 40), ("t10k", 12)):
        images = draw.randint(0, 256, (count, 16, 16)).astype(np.uint8)
        labels = (np.arange(count) % 3).astype(np.uint8)
        images[:, 0, 0], images[:, 0, 1] = np.arange(count), labels
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", labels)
    return {"source": "fashion_mnist", "root": str(tmp_path)}


@pytest.fixture
def asked(monkeypatch):
    """Answer `load_dataset` from memory: ten grey images, classes 0 and 1; returns what was asked for."""
    import datasets

    pictures = [Image.fromarray(np.full((20, 30), 25 * n, np.uint8)) for n in range(10)]
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["a", "b"]),
            "n": datasets.Value("int64"),
        }
    )
    rows = {"image": pictures, "label": [n % 2 for n in range(10)], "n": list(range(10))}
    calls, made = [], datasets.Dataset.from_dict(rows, features=features)

    def load(name, split):
        calls.append((name, split))
        return made

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(hub, "reachable", lambda: True)
    return calls


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
