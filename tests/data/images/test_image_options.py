"""Options of image sets: each arrives, what evaluation and judging take, and who is chosen."""

import shutil

import numpy as np
import pytest
import torch
from composer.utils import dist
from image_loaders import batches, build, end_workers, same, write_idx  # noqa: F401
from PIL import Image
from plain_hash import plain_uniform

from cadenza.data import DataError, ImageConfig, build_image_dataspec
from cadenza.data.images import arrays as image_arrays
from cadenza.data.images import files as image_files
from cadenza.data.images.arrays import moments
from cadenza.data.images.loader import channels, classes
from cadenza.data.images.pictures import pictures


@pytest.fixture
def idx(tmp_path):
    """Fashion_mnist's files: 40 images to train on of 5 classes, and 12 for evaluation of 3; image i is i."""
    for part, count, kinds in (("train", 40, 5), ("t10k", 12, 3)):
        images = np.zeros((count, 16, 16), np.uint8) + np.arange(count, dtype=np.uint8)[:, None, None]
        images[:, :, 8:] += 100
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", (np.arange(count) % kinds).astype(np.uint8))
    return {"source": "fashion_mnist", "root": str(tmp_path)}


@pytest.fixture
def folder(tmp_path):
    """A class of ten grey images to train on and of two for evaluation, and another of one each."""
    for part, counts in (("train", {"a": 10, "b": 1}), ("val", {"a": 2, "b": 1})):
        for name, count in counts.items():
            (tmp_path / "set" / part / name).mkdir(parents=True)
            for number in range(count):
                grey = Image.fromarray(np.full((30, 40), 20 * number, np.uint8))
                grey.save(tmp_path / "set" / part / name / f"{number}.png")
        (tmp_path / "set" / part / "README").write_text("no class")
    return {"source": str(tmp_path / "set"), "image_size": 16, "eval_resize": 20}


def judged(values, **more):
    cfg = ImageConfig(**values)
    return build_image_dataspec(cfg, train=True, batch_size=7, judged=True, **{"seed": 5, **more})


def test_judged_images_are_all_of_training_once_in_order_as_they_are(idx, folder):
    for values, augmentation, labels in (
        (idx, "crop_flip", [n % 5 for n in range(40)]),
        (folder, "inception", [0] * 10 + [1]),
    ):
        spec = judged({**values, "augmentation": augmentation})
        first = batches(spec, 0)
        assert torch.cat([each for _, each in first]).tolist() == labels
        assert same(first, batches(spec, 1))
        assert same(first, batches(judged({**values, "augmentation": "none"})))
        assert same(first, batches(judged({**values, "augmentation": augmentation}, seed=6)))
        trained = batches(build(values, batch_size=7))
        assert not same(first[: len(trained)], trained), "unless judged, training is shuffled"


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("train", [True, False])
def test_what_the_loader_is_told(idx, folder, monkeypatch, workers, train):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for values in (idx, folder):
        loader = build(values, train=train, batch_size=3, num_workers=workers).dataloader
        told = (loader.batch_size, loader.num_workers, loader.persistent_workers, loader.pin_memory)
        assert told == (3, workers, workers > 0, True)
        assert loader.drop_last == train


@pytest.mark.parametrize("world", [1, 2])
def test_a_batch_of_all_ranks_must_be_there(idx, monkeypatch, world):
    monkeypatch.setattr(dist, "get_world_size", lambda: world)
    build(idx, batch_size=40 // world)
    said = f"fashion_mnist gives 40 images for training; a batch takes {40 + world}$"
    with pytest.raises(DataError, match=said):
        build(idx, batch_size=40 // world + 1)
    assert len(build(idx, train=False, batch_size=999, eval_images=1).dataloader.dataset) == 1
    assert len(judged({**idx, "train_images": 1}).dataloader.dataset) == 1


def test_classes_are_those_of_training(idx, folder):
    assert (classes(ImageConfig(**idx)), channels(ImageConfig(**idx))) == (5, 1)
    assert (classes(ImageConfig(**folder)), channels(ImageConfig(**folder))) == (2, 3)


def test_one_class_is_refused(folder, idx, tmp_path):
    for part in ("train", "val"):
        shutil.rmtree(tmp_path / "set" / part / "b")
    with pytest.raises(DataError, match=r"^data\.source: .*set has 1 class; a classifier needs at least 2$"):
        classes(ImageConfig(**folder))


def chosen(seed, count, limit):
    return sorted(range(count), key=lambda n: plain_uniform(seed, n, 0))[:limit]


@pytest.mark.parametrize("seed", [5, 6])
def test_who_is_chosen_goes_by_the_seed_in_training_alone(idx, folder, seed):
    for values, train, evaluation in ((idx, 40, 12), (folder, 11, 3)):
        caps = {"train_images": 4, "eval_images": 2}
        order = build(values, seed=seed, **caps).dataloader.dataset.order
        assert order.tolist() == chosen(seed, train, 4)
        order = build(values, train=False, seed=seed, **caps).dataloader.dataset.order
        assert order.tolist() == chosen(0, evaluation, 2)
        assert build(values, seed=seed).dataloader.dataset.order.tolist() == list(range(train))


def test_where_files_of_mnist_are_looked_for(idx, tmp_path, monkeypatch):
    assert image_arrays.DEBIAN == "/usr/share/datasets/fashion-mnist"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(image_arrays, "DEBIAN", "~")
    plain = batches(build(idx, train=False))
    assert same(plain, batches(build({"source": "fashion_mnist"}, train=False)))
    assert same(plain, batches(build({"source": "fashion_mnist", "root": "~/."}, train=False)))


def test_moments_of_few_pixels():
    assert moments(torch.tensor([[0, 255], [255, 0]], dtype=torch.uint8)) == (127.5, 127.5)
    assert moments(torch.tensor([7], dtype=torch.uint8)) == (7.0, 1.0)
    assert moments(torch.zeros(0, dtype=torch.uint8)) == (0.0, 1.0)
    mean, std = moments(torch.tensor([1, 2, 6], dtype=torch.uint8))
    assert (mean, std) == pytest.approx((3, (14 / 3) ** 0.5), rel=1e-12)


def test_one_image_of_one_pixel_is_an_idx_file(tmp_path):
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", np.full((1, 1, 1), 9, np.uint8))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.full(1, 4, np.uint8))
    cfg = ImageConfig(source="fashion_mnist", root=str(tmp_path))
    images, labels = image_arrays.read_arrays(cfg, train=False)
    assert (images.tolist(), labels.tolist()) == ([[[[9]]]], [4])
    assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)


def test_the_digits_for_evaluation_are_always_the_same():
    from sklearn.datasets import load_digits

    pixels = load_digits().images.astype(np.uint8)
    for train, first, count in ((True, [0, 1, 2, 3, 7, 8], 1438), (False, [4, 5, 6, 9, 14, 17], 359)):
        images, labels = image_arrays.read_arrays(ImageConfig(), train)
        assert images.shape == (count, 1, 8, 8)
        assert np.array_equal(images[:6, 0].numpy(), pixels[first])
        assert torch.equal(labels, image_arrays.read_labels(ImageConfig(), train))


def test_flips_alone_leave_images_in_place(idx):
    """The crop's numbers are drawn and left: a flip is the same with `crop_flip` and `flip`."""
    dataset = build(idx, augmentation="flip").dataloader.dataset
    mean, std = dataset.moments
    pixels = (torch.cat([dataset[n][0] for n in range(40)])[:, :, [0, 8]] * std + mean).round()
    for number, (left, right) in enumerate(pixels[:, 0].tolist()):
        turned = plain_uniform(5, number, 2) < 0.5
        assert (left, right) == ((number + 100, number) if turned else (number, number + 100))


def test_colours_are_normalized_as_those_of_imagenet(folder):
    assert (image_files.MEAN, image_files.STD) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    image, _ = build(folder, train=False).dataloader.dataset[1]
    grey = torch.tensor(20 / 255)
    for channel, (mean, std) in enumerate(zip(image_files.MEAN, image_files.STD, strict=True)):
        assert torch.allclose(image[channel], (grey - mean) / std, atol=1e-6)


@pytest.mark.parametrize("train", [True, False])
def test_sizes_arrive(folder, train):
    sizes = {"image_size": 10, "eval_resize": 10 if train else 25}
    for augmentation in ("inception", "none"):
        dataset = build({**folder, **sizes}, train=train, augmentation=augmentation).dataloader.dataset
        assert (dataset.size, dataset.resize) == (10, sizes["eval_resize"])
        assert dataset[0][0].shape == (3, 10, 10)


def test_files_between_the_folders_are_no_classes(folder):
    assert len(pictures(ImageConfig(**folder), train=True)) == 11
    assert len(pictures(ImageConfig(**folder), train=False)) == 3
    assert pictures(ImageConfig(**folder), train=False).classes == 2


def test_folders_start_at_home(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(build({**folder, "source": "~/set"}).dataloader.dataset) == 11


@pytest.mark.parametrize("source", ["./none", "/none", "~/none", "some/set/none"])
def test_a_path_is_no_name_on_the_hub(source):
    with pytest.raises(DataError, match=f"^data.source: there is no folder {source}$"):
        build({"source": source})


def test_a_class_must_be_on_both_sides(folder, tmp_path):
    (tmp_path / "set/train/c").mkdir()
    with pytest.raises(DataError, match=r"train and val in .*set has the class c; both must have it$"):
        build(folder)
