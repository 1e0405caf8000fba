"""Images for classification: sources, augmentation, order, errors."""

import gzip

import numpy as np
import pytest
import torch
from image_loaders import batches, build, end_workers, pixels, same, write_idx  # noqa: F401
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from cadenza.data import DataError, ImageConfig
from cadenza.data.draws import uniform
from cadenza.data.images.augment import INCEPTION_COLUMNS, inception_box
from cadenza.data.images.files import MEAN, STD
from cadenza.data.images.loader import channels, classes


@pytest.fixture
def folder(tmp_path):
    """Noise of 30 x 40 pixels, in three classes of six and two images; class c is brighter with c."""
    draw = np.random.RandomState(4)
    for part, count in (("train", 6), ("val", 2)):
        for label, name in enumerate(("ape", "bee", "cat")):
            (tmp_path / "set" / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = draw.randint(80 * label, 80 * label + 80, (30, 40, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / "set" / part / name / f"{number}.png")
    return {"source": str(tmp_path / "set"), "image_size": 16, "eval_resize": 20}


@pytest.mark.slow
def test_digits():
    cfg = ImageConfig()
    assert (classes(cfg), channels(cfg)) == (10, 1)
    train, evaluation = (build({}, train=part, batch_size=64) for part in (True, False))
    images, labels = next(iter(train.dataloader))
    assert (images.shape, images.dtype) == ((64, 1, 8, 8), torch.float32)
    assert (labels.shape, labels.dtype) == ((64,), torch.int64)
    everything = pixels(build({}, batch_size=1438))
    assert abs(float(everything.mean())) < 1e-4
    assert float(everything.std(correction=0)) == pytest.approx(1, abs=1e-4)
    assert sum(len(labels) for _, labels in evaluation.dataloader) == 359
    assert len(train.dataloader) == 1438 // 64, "no batch that isn't full"


def test_no_digit_is_in_both_splits_and_labels_are_right():
    from sklearn.datasets import load_digits

    def seen(train):
        dataset = build({}, train=train, batch_size=1).dataloader.dataset
        return {
            image.numpy().tobytes(): int(label)
            for image, label in zip(dataset.images, dataset.labels, strict=True)
        }

    train, evaluation = seen(True), seen(False)
    assert not train.keys() & evaluation.keys()
    digits = load_digits()
    truth = zip(digits.images.astype(np.uint8), digits.target, strict=True)
    assert train | evaluation == {image.tobytes(): label for image, label in truth}
    assert set(train.values()) == set(evaluation.values()) == set(range(10))


def test_idx_files(idx):
    assert (classes(ImageConfig(**idx)), channels(ImageConfig(**idx))) == (3, 1)
    spec = build(idx)
    mean, std = spec.dataloader.dataset.moments
    raw = spec.dataloader.dataset.images
    assert mean == pytest.approx(float(raw.double().mean()), rel=1e-12)
    assert std == pytest.approx(float(raw.double().std(correction=0)), rel=1e-12)
    numbers = []
    for images, labels in spec.dataloader:
        first = (images[:, 0, 0] * std + mean).round().long()
        assert first[:, 1].tolist() == labels.tolist()
        numbers += first[:, 0].tolist()
    assert sorted(numbers) == list(range(40))
    assert numbers != sorted(numbers)
    evaluation = build(idx, train=False).dataloader
    assert evaluation.dataset.moments == (mean, std), "those of the training images"
    assert torch.cat([labels for _, labels in evaluation]).tolist() == [i % 3 for i in range(12)]


def test_a_folder(folder):
    assert (classes(ImageConfig(**folder)), channels(ImageConfig(**folder))) == (3, 3)
    for train, count in ((True, 18), (False, 6)):
        images, labels = next(iter(build(folder, train=train, batch_size=count).dataloader))
        assert (images.shape, images.dtype) == ((count, 3, 16, 16), torch.float32)
        assert (labels.dtype, labels.bincount().tolist()) == (torch.int64, [count // 3] * 3)
        mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
        brightness = (images * std + mean).mean(dim=(1, 2, 3)) * 255
        assert (brightness / 80).floor().tolist() == labels.tolist(), "classes are as bright as made"


def test_evaluation_is_resized_and_cut_from_the_middle(folder, tmp_path):
    images, labels = next(iter(build(folder, train=False).dataloader))
    assert labels.tolist()[:2] == [0, 0]
    image = Image.open(tmp_path / "set/val/ape/1.png").resize((26, 20), Image.Resampling.BICUBIC)
    expected = torch.from_numpy(np.array(image)[2:18, 5:21] / 255.0).float().permute(2, 0, 1)
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    torch.testing.assert_close(images[1], (expected - mean) / std)


@pytest.mark.parametrize("augmentation", ["crop_flip", "flip", "inception"])
def test_a_draw_has_its_own_pixels_whatever_the_workers(augmentation, idx, folder):
    values = folder if augmentation == "inception" else idx
    spec, other = (build(values, augmentation=augmentation, num_workers=n) for n in (0, 2))
    first, second = batches(spec, 0), batches(spec, 1)
    assert same(first, batches(spec, 0))
    assert same(first, batches(other, 0))
    assert same(second, batches(other, 1)), "workers that stay see the epoch, too"
    dataset = spec.dataloader.dataset
    views = [dataset[7 + len(dataset) * epoch][0] for epoch in range(6)]
    assert not all(view.equal(views[0]) for view in views), "other epochs, other pixels"
    assert not same(first, batches(build(values, augmentation=augmentation, seed=6), 0))


def test_without_augmentation_training_sees_the_images_as_they_are(idx, folder):
    for values in (idx, folder):
        dataset = build(values).dataloader.dataset
        assert all(dataset[i][0].equal(dataset[i + 3 * len(dataset)][0]) for i in range(len(dataset)))


@pytest.mark.parametrize("augmentation", ["crop_flip", "inception"])
def test_a_resume_in_mid_epoch_goes_on_with_the_same_batches(augmentation, idx, folder):
    values = folder if augmentation == "inception" else idx
    whole = batches(build(values, augmentation=augmentation), 3)
    resumed = build(values, augmentation=augmentation, num_workers=1)
    assert same(whole[2:], batches(resumed, 3)[2:])


def test_ranks_share_no_image(idx, monkeypatch):
    from composer.utils import dist

    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    seen = []
    for rank in range(2):
        monkeypatch.setattr(dist, "get_global_rank", lambda rank=rank: rank)
        seen.append({image.numpy().tobytes() for image in pixels(build(idx))})
    assert [len(each) for each in seen] == [20, 20]
    assert not seen[0] & seen[1]


def test_evaluation_has_no_randomness(idx, folder):
    for values, augmentation in ((idx, "crop_flip"), (folder, "inception")):
        plain = batches(build(values, train=False, augmentation="none"))
        for epoch in range(2):
            assert same(
                plain, batches(build(values, train=False, seed=epoch, augmentation=augmentation), epoch)
            )
        assert not same(plain, batches(build(values, augmentation=augmentation))[: len(plain)])


def test_inception_crops_resizes_and_flips(folder, tmp_path):
    dataset = build(folder, augmentation="inception").dataloader.dataset
    image = Image.open(tmp_path / "set/train/ape/2.png")
    mirrored = 0
    for epoch in range(8):
        draw = 2 + epoch * len(dataset)
        at = uniform(5, [draw], INCEPTION_COLUMNS)[0]
        top, left, tall, wide = inception_box(30, 40, at)
        part = image.crop((left, top, left + wide, top + tall))
        view = F.pil_to_tensor(F.resize(part, [16, 16], interpolation=InterpolationMode.BICUBIC)) / 255
        view = view.flip(-1) if at[-1] < 0.5 else view
        mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
        torch.testing.assert_close(dataset[draw][0], (view - mean) / std)
        mirrored += at[-1] < 0.5
    assert 0 < mirrored < 8


def test_caps_are_chosen_by_chance(idx, folder):
    some = build(folder, train=False, eval_images=5, batch_size=5)
    assert len(set(next(iter(some.dataloader))[1].tolist())) > 1, "not the first class alone"
    other_seed = build(folder, train=False, eval_images=5, batch_size=5, seed=99)
    assert same(batches(some), batches(other_seed)), "the same evaluation whatever the seed"
    orders = [build(idx, train_images=9, seed=seed).dataloader.dataset.order.tolist() for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert len(set(orders[0])) == 9
    assert len(build(idx, train_images=9).dataloader) == 2


def test_what_is_wrong_with_a_folder_is_said(folder, tmp_path):
    root = tmp_path / "set"
    broken = root / "train" / "bee" / "0.png"
    broken.write_bytes(broken.read_bytes()[:200])
    for workers in (0, 1):
        with pytest.raises(DataError, match=r"bee/0.png is not a whole image .*; replace it, or take it out"):
            batches(build(folder, num_workers=workers))
    (root / "val" / "dog").mkdir()
    with pytest.raises(DataError, match=r"only one of train and val in .*set has the class dog; both must"):
        build(folder)
    (root / "train" / "dog").mkdir()
    with pytest.raises(DataError, match=r"set/train has a class without images \(.*dog"):
        build(folder)
    (root / "val").rename(tmp_path / "away")
    with pytest.raises(DataError, match=r"there is no folder .*set/val; add train/CLASS and val/CLASS"):
        build(folder)
    (root / "val").mkdir()
    with pytest.raises(DataError, match=r"set/val is empty; it needs a folder of images for each class"):
        build(folder)
    with pytest.raises(DataError, match=r"data\.source: there is no folder \./nowhere"):
        build({"source": "./nowhere"})


def test_what_is_wrong_with_idx_files_is_said(idx, tmp_path):
    images, labels = (tmp_path / f"train-{name}-ubyte.gz" for name in ("images-idx3", "labels-idx1"))
    write_idx(labels, np.zeros(3, np.uint8))
    with pytest.raises(DataError, match=r"data\.root: .* has 40 images and 3 labels of train"):
        build(idx)
    for array in (np.zeros(3, np.uint8), np.zeros((0, 4, 4), np.uint8)):
        write_idx(images, array)
        with pytest.raises(DataError, match=r"idx3-ubyte.gz is not an IDX file of bytes in 3 dimensions"):
            build(idx)
    with gzip.open(images, "wb") as file:
        file.write(b"\0")
    with pytest.raises(DataError, match=r"idx3-ubyte.gz is not an IDX file of bytes in 3 dimensions"):
        build(idx)
    for content in (b"plain", labels.read_bytes()[:-9]):
        images.write_bytes(content)
        with pytest.raises(DataError, match=r"idx3-ubyte.gz is not a whole gzip file"):
            build(idx)
    images.unlink()
    said = r"has no file .*train-images-idx3-ubyte.gz; install Debian's package dataset-fashion-mnist, or set"
    with pytest.raises(DataError, match=said + r" data\.root to a folder with train-images-idx3-ubyte.gz"):
        build(idx)
