"""Every option of the sections `model` and `data` of an image recipe, by what it changes."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from image_loaders import asked, idx  # noqa: F401
from PIL import Image
from torchvision.models.resnet import BasicBlock

from cadenza.data import DataError, ImageConfig
from cadenza.recipe import load
from cadenza.recipe.run import task_of
from cadenza.recipe.schema import ImageModel

SMALL = ["model={objective: image_classification, model_type: resnet10, width: 0.25, stem: small}"]


def made(*pairs):
    return task_of(load([], [*SMALL, *pairs])).model()


def blocks(network):
    return sum(isinstance(module, BasicBlock) for module in network.modules())


def has_biases(network):
    return bool(network.fc.bias.any())


def is_channels_last(network):
    return network.layer1[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)


MODELS = {
    "model_type": ("model.model_type=resnet18", blocks, 4, 8),
    "width": ("model.width=0.125", lambda network: network.fc.in_features, 128, 64),
    "stem": ("model.stem=small_stride2", lambda network: network.conv1.stride, (1, 1), (2, 2)),
    "init": ("model.init=lecun", has_biases, True, False),
    "channels_last": ("model.channels_last=true", is_channels_last, False, True),
}


@pytest.mark.parametrize("option", MODELS)
def test_an_option_of_the_model(option):
    pair, found, before, after = MODELS[option]
    plain, other = made(), made(pair)
    assert (found(plain.module), found(other.module)) == (before, after)


def test_no_option_is_missing_here():
    assert {"objective", *MODELS} == {f.name for f in fields(ImageModel)}
    assert {*DIGITS, *FILES, *HUB, "root", "image_field"} == {f.name for f in fields(ImageConfig)}


def test_the_model_is_the_seeds_whatever_came_before():
    weights = []
    for seed, before in ((3, 1), (3, 2), (4, 1)):
        torch.manual_seed(before)
        weights.append(made(f"seed={seed}").module.conv1.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def loaders(*pairs):
    """Of training and of evaluation."""
    recipe = load([], [*SMALL, "train.global_batch_size=4", *pairs])
    return [spec.dataloader for spec in task_of(recipe).data()]


def sizes(loader):
    return len(loader.dataset)


def changed(loader):
    """Whether most of its images are none of the source."""
    plain = {view for one in loaders() for view in views(one, len(one.dataset))}
    return sum(view not in plain for view in views(loader, 50)) > 25


def views(loader, count):
    return [image.numpy().tobytes() for image in loader.dataset.__getitems__(list(range(count)))[0]]


def workers(loader):
    return loader.num_workers


DIGITS = {
    "train_images": ("data.train_images=100", sizes, (1438, 359), (100, 359)),
    "eval_images": ("data.eval_images=50", sizes, (1438, 359), (1438, 50)),
    "augmentation": ("data.augmentation=crop_flip", changed, (False, False), (True, False)),
    "num_workers": ("data.num_workers=2", workers, (0, 0), (2, 2)),
}


@pytest.mark.parametrize("option", DIGITS)
def test_an_option_of_digits(option):
    pair, found, before, after = DIGITS[option]
    assert tuple(map(found, loaders())) == before
    assert tuple(map(found, loaders(pair))) == after


def test_source_and_root(idx):  # noqa: F811
    pairs = "data.source=fashion_mnist", f"data.root={idx['root']}"
    assert tuple(map(sizes, loaders(*pairs))) == (40, 12)
    assert made(*pairs).module.fc.out_features == 3
    assert made().module.fc.out_features == 10


@pytest.fixture
def ramps(tmp_path):
    """A folder of images of 30 x 40 pixels that grow lighter from left to right, in two classes."""
    ramp = np.broadcast_to(np.linspace(0, 255, 40), (30, 40)).astype(np.uint8)
    for part, count in (("train", 3), ("val", 1)):
        for name in ("ape", "bee"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(count):
                Image.fromarray(ramp).save(tmp_path / part / name / f"{number}.png")
    return [f"data.source={tmp_path}", "data.image_size=16", "data.eval_resize=16"]


def side(loader):
    return loader.dataset[0][0].shape[-1]


def width_shown(loader):
    """Of the ramp, from the lightest pixel of a view to the darkest; a channel's deviation is 0.229."""
    view = loader.dataset[0][0][0] * 0.229
    return float(view.max() - view.min())


def views_differ(loader):
    return len({loader.dataset[draw][0].numpy().tobytes() for draw in range(len(loader.dataset))}) > 1


FILES = {
    "image_size": (["data.image_size=8"], side, (16, 16), (8, 8)),
    "eval_resize": (["data.eval_resize=32"], width_shown, (0.75, 0.75), (0.375, 0.375)),
    "augmentation": (["data.augmentation=inception"], views_differ, (False, False), (True, False)),
}


@pytest.mark.parametrize("option", FILES)
def test_an_option_of_folders(option, ramps):
    pairs, found, before, after = FILES[option]
    assert tuple(map(found, loaders(*ramps))) == pytest.approx(before, abs=0.06)
    assert tuple(map(found, loaders(*ramps, *pairs))) == pytest.approx(after, abs=0.06)


def test_the_model_fits_the_images(ramps):
    model = made(*ramps)
    assert (model.module.conv1.in_channels, model.module.fc.out_features) == (3, 2)
    assert made().module.conv1.in_channels == 1


TRAINING, EVALUATION = ("some/set", "train"), ("some/set", "validation")
HUB = {
    "source": ("data.source=other/set", [("other/set", "train"), ("other/set", "validation")]),
    "split": ("data.split=most", [("some/set", "most"), EVALUATION]),
    "eval_split": ("data.eval_split=rest", [TRAINING, ("some/set", "rest")]),
    "label_field": ("data.label_field=n", [TRAINING, EVALUATION]),
}


@pytest.mark.parametrize("option", HUB)
def test_an_option_of_hub_sets(option, asked):  # noqa: F811
    pair, expected = HUB[option]
    train, evaluation = loaders("data.source=some/set", pair)
    assert asked == expected
    labels = [loader.dataset[3][1] for loader in (train, evaluation)]
    assert labels == ([3, 3] if option == "label_field" else [1, 1])


def test_the_field_of_images(asked):  # noqa: F811
    train, evaluation = loaders("data.source=some/set", "data.image_field=n")
    for loader in (train, evaluation):
        with pytest.raises(DataError, match=r"data\.image_field: 'n' of row 3"):
            loader.dataset[3]
