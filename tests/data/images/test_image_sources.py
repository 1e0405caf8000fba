"""Hub sets of images, and what is said of values that are wrong or missing."""

import numpy as np
import pytest
import torch
from image_loaders import batches, build, end_workers, pixels  # noqa: F401
from PIL import Image

from cadenza.data import DataError, ImageConfig, hub
from cadenza.data.images.files import MEAN, STD
from cadenza.data.images.loader import channels, classes


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
    with pytest.raises(DataError, match=r"data\.image_field: some/set has no 'img'; it has image, label, n"):
        build({"source": "some/set", "image_field": "img"})
    with pytest.raises(DataError, match=r"data\.label_field: some/set has no 'y'; it has image, label, n"):
        build({"source": "some/set", "label_field": "y"})
    with pytest.raises(DataError, match=r"data\.label_field: 'image' of some/set holds no whole numbers"):
        build({"source": "some/set", "label_field": "image"})
    wrong = build({"source": "some/set", "image_field": "n"})
    with pytest.raises(DataError, match=r"'n' of row \d of some/set, split train is not an image"):
        next(iter(wrong.dataloader))
    few = build({"source": "some/set", "label_field": "n"}, train=False).dataloader.dataset
    few.pictures.classes = 3
    with pytest.raises(
        DataError, match=r"row 7 of some/set, split validation has the label 7; it must be 0 to"
    ):
        few[7]
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(
        DataError, match=r"'a/b' can't be read \(ZeroDivisionError: division by zero\); no folder"
    ):
        build({"source": "a/b"})
    monkeypatch.setattr(hub, "reachable", lambda: False)
    with pytest.raises(DataError, match="can't be reached: the Hub doesn't answer; no folder has this name"):
        build({"source": "a/b"})


def test_digits_name_their_install_command(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match="digits needs scikit-learn: pip install scikit-learn"):
        build({})


def test_too_few_images_are_said():
    message = r"data\.source: digits gives 1438 images for training; a batch takes 9999"
    with pytest.raises(DataError, match=message):
        build({}, batch_size=9999)


def rows_of(labels, size=20):
    import datasets

    pictures = [Image.fromarray(np.full((size, size, 3), 10 * n, np.uint8)) for n in range(len(labels))]
    features = {"photo": datasets.Image(), "kind": datasets.Value("int64"), "kind2": datasets.ClassLabel(9)}
    columns = {"photo": pictures, "kind": labels, "kind2": [0] * len(labels)}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


@pytest.fixture
def stored(monkeypatch):
    """Answer `load_dataset` by the split; what was asked for."""
    import datasets

    sets = {
        "first": rows_of([0, 1, 2, 4]),
        "last": rows_of([1, -1]),
        "none": rows_of([]),
        "odd": rows_of([0, None]),
    }
    calls = []

    def load(name, split):
        calls.append((name, split))
        return sets[split]

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(hub, "reachable", lambda: True)
    return calls


def of(field="kind", split="first", eval_split="last"):
    fields = {"image_field": "photo", "label_field": field, "split": split, "eval_split": eval_split}
    return {"source": "some/set", "image_size": 8, "eval_resize": 8, **fields}


def test_splits_and_fields_of_a_hub_set_arrive(stored):
    assert classes(ImageConfig(**of())) == 5, "what no feature says is counted"
    assert classes(ImageConfig(**of("kind2"))) == 9
    assert stored == [("some/set", "first")] * 2, "of training"
    stored.clear()
    train, evaluation = (build(of("kind2"), train=part, batch_size=2) for part in (True, False))
    assert stored == [("some/set", "first"), ("some/set", "last")]
    images, labels = next(iter(evaluation.dataloader))
    assert labels.tolist() == [0, 0]
    assert images.shape == (2, 3, 8, 8)
    assert len(train.dataloader.dataset) == 4


def test_labels_that_are_no_classes_are_said(stored):
    dataset = build(of(), train=False).dataloader.dataset
    assert dataset[0][1] == 1
    with pytest.raises(DataError, match=r"row 1 of some/set, split last has the label -1; it must be 0 to 1"):
        dataset[1]
    dataset.pictures.classes = 1
    with pytest.raises(DataError, match=r"row 0 of some/set, split last has the label 1; it must be 0 to 0$"):
        dataset[0]
    odd = build(of()).dataloader.dataset
    odd.pictures.rows = rows_of([0, None])
    with pytest.raises(
        DataError, match="row 1 of some/set, split first has the label None; it must be 0 to 4"
    ):
        odd[1]
    with pytest.raises(DataError, match=r"'kind' of some/set holds no whole numbers$"):
        build(of(eval_split="odd"), train=False)


def test_a_hub_set_without_images_is_said(stored):
    for train, part, needed in ((True, "training", 4), (False, "evaluation", 1)):
        said = f"some/set gives 0 images for {part}; a batch takes {needed}$"
        with pytest.raises(DataError, match=said):
            build(of(split="none", eval_split="none"), train=train)
    assert classes(ImageConfig(**of(split="none"))) == 0
