"""Hub sets of images, and what is said of values that are wrong or missing."""

import numpy as np
import pytest
import torch
from image_loaders import batches, build, end_workers, pixels  # noqa: F401
from PIL import Image

from cadenza.data import DataError, ImageConfig, hub
from cadenza.data.image_files import MEAN, STD
from cadenza.data.images import channels, classes


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


def test_a_hub_set(asked):
    values = {"source": "some/set", "image_size": 8, "eval_resize": 8}
    assert (classes(ImageConfig(**values)), channels(ImageConfig(**values))) == (2, 3)
    assert classes(ImageConfig(**values, label_field="n")) == 10
    images, labels = next(iter(build(values, train=False, batch_size=10).dataloader))
    assert asked[-1] == ("some/set", "validation")
    assert images.shape == (10, 3, 8, 8)
    assert labels.tolist() == [n % 2 for n in range(10)]
    expected = (torch.arange(10) * 25 / 255 - MEAN[0]) / STD[0]
    torch.testing.assert_close(images[:, 0, 4, 4], expected)
    for workers in (0, 1):
        views = pixels(build(values, augmentation="inception", num_workers=workers))
        assert len(views) == 8


def test_what_is_wrong_with_a_hub_set_is_said(asked, monkeypatch):
    with pytest.raises(DataError, match=r"data\.image_field: some/set has no 'img', but image, label, n"):
        build({"source": "some/set", "image_field": "img"})
    with pytest.raises(DataError, match=r"data\.label_field: some/set has no 'y', but image, label, n"):
        build({"source": "some/set", "label_field": "y"})
    with pytest.raises(DataError, match=r"data\.label_field: 'image' of some/set holds no whole numbers"):
        build({"source": "some/set", "label_field": "image"})
    wrong = build({"source": "some/set", "image_field": "n"})
    with pytest.raises(DataError, match=r"'n' of row \d of some/set, split train is not an image"):
        next(iter(wrong.dataloader))
    few = build({"source": "some/set", "label_field": "n"}, train=False).dataloader.dataset
    few.pictures.classes = 3
    with pytest.raises(DataError, match=r"row 7 of some/set, split validation has the label 7, of 3 classes"):
        few[7]
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(
        DataError, match=r"'a/b' can't be read \(ZeroDivisionError: division by zero\); check"
    ):
        build({"source": "a/b"})
    monkeypatch.setattr(hub, "reachable", lambda: False)
    with pytest.raises(
        DataError, match=r"no folder a/b, and data set 'a/b' can't be reached: the Hub doesn't answer; check"
    ):
        build({"source": "a/b"})


def test_digits_name_their_install_command(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(
        DataError, match="digits needs scikit-learn; install it with: pip install scikit-learn"
    ):
        build({})


def test_too_few_images_are_said():
    message = r"data\.source: digits gives 1438 images for training; a batch takes 9999"
    with pytest.raises(DataError, match=message):
        build({}, batch_size=9999)
