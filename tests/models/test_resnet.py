"""ResNets: torchvision's at width 1, their widths and stems, how blocks start, what is measured of them."""

import pytest
import torch
import torchvision
from torch.nn import functional as F

from cadenza.models import ModelError, resnet
from cadenza.models.resnet import DEPTHS

BLOCKS = {
    "resnet10": [1, 1, 1, 1],
    "resnet18": [2, 2, 2, 2],
    "resnet34": [3, 4, 6, 3],
    "resnet29": [2, 2, 3, 2],
    "resnet50": [3, 4, 6, 3],
    "resnet101": [3, 4, 23, 3],
    "resnet152": [3, 8, 36, 3],
    "resnet200": [3, 24, 36, 3],
}
PLANES = (64, 128, 256, 512)
BOTTLENECKS = ("resnet29", "resnet50", "resnet101", "resnet152", "resnet200")
depths = pytest.mark.parametrize("depth", ["resnet18", "resnet50"])


def shapes(network):
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def unsettled(network):
    """The same with norms that do something, and other than at the start."""
    generator = torch.Generator().manual_seed(1)
    for key, value in network.state_dict().items():
        if value.ndim == 1:
            noise = torch.rand(value.shape, generator=generator)
            value.copy_(noise - 0.5 if key.endswith(("bias", "running_mean")) else noise + 0.5)
    return network.eval()


@pytest.mark.slow
@depths
@torch.no_grad()
def test_width_one_is_torchvisions(depth):
    theirs = unsettled(torchvision.models.get_model(depth, weights=None))
    ours = resnet(depth).module.eval()
    assert shapes(ours) == shapes(theirs)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before = ours(images)
    ours.load_state_dict(theirs.state_dict())
    expected = theirs(images)
    assert torch.equal(ours(images), expected)
    assert not torch.allclose(before, expected), "the weights count"


@pytest.mark.parametrize("depth", BLOCKS)
def test_width_is_that_of_the_blocks(depth):
    with torch.device("meta"):
        network = resnet(depth, 0.375, 7).module
    last = 4 if depth in BOTTLENECKS else 1
    blocks = [getattr(network, f"layer{stage}") for stage in (1, 2, 3, 4)]
    assert [len(stage) for stage in blocks] == BLOCKS[depth]
    assert DEPTHS.keys() == BLOCKS.keys()
    for planes, stage in zip(PLANES, blocks, strict=True):
        filters = int(planes * 0.375)
        for block in stage:
            *inner, outer = (m.out_channels for name, m in block.named_children() if name.startswith("conv"))
            assert set(inner) == {filters}
            assert outer == last * filters
    assert network.conv1.out_channels == network.bn1.num_features == 64, "the stem keeps its own"
    assert blocks[0][0].conv1.in_channels == 64
    assert (network.fc.in_features, network.fc.out_features) == (last * 192, 7)


SIZES = {
    "imagenet": (64, 64, [16, 8, 4, 2]),
    "small": (28, 16, [28, 14, 7, 4]),
    "small_stride2": (28, 16, [14, 7, 4, 2]),
}


@pytest.mark.parametrize("stem", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_stems(stem, channels):
    size, filters, expected = SIZES[stem]
    network = resnet("resnet10", 0.25, 5, channels, stem).module
    assert network.conv1.in_channels == channels
    assert network.conv1.out_channels == network.bn1.num_features == filters
    sides = []
    for stage in (1, 2, 3, 4):
        layer = getattr(network, f"layer{stage}")
        layer.register_forward_hook(lambda _, args, out: sides.append(out.shape[-2:]))
    logits = network(torch.randn(2, channels, size, size))
    assert sides == [(side, side) for side in expected]
    assert logits.shape == (2, 5)


@depths
@torch.no_grad()
def test_a_block_starts_as_its_shortcut(depth):
    network = resnet(depth, 0.125, stem="small").module
    stages = [block for stage in (1, 2, 3, 4) for block in getattr(network, f"layer{stage}")]
    for block in stages:
        last = block.bn3 if depth in BOTTLENECKS else block.bn2
        x = torch.randn(2, block.conv1.in_channels, 8, 8)
        shortcut = x if block.downsample is None else block.downsample(x)
        assert torch.equal(block(x), F.relu(shortcut))
        last.weight.fill_(1)
        assert not torch.allclose(block(x), F.relu(shortcut)), "it's this norm that is zero"
        last.weight.zero_()
    norms = [m.weight for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert sum(bool((weight == 0).all()) for weight in norms) == len(stages)
    assert sum(bool((weight == 1).all()) for weight in norms) == len(norms) - len(stages)


def test_top1_and_top5():
    """Of three examples the class is first, fifth and sixth."""
    model = resnet("resnet10", 0.125, num_classes=6, stem="small")
    logits = torch.tensor([6.0, 5.0, 4.0, 3.0, 2.0, 1.0]).repeat(3, 1)
    labels = torch.tensor([0, 4, 5])
    metrics = model.get_metrics(is_train=False)
    for metric in metrics.values():
        model.update_metric((None, labels), logits, metric)
    assert metrics.keys() == {"CrossEntropy", "top1", "top5"}
    assert float(metrics["top1"].compute()) == pytest.approx(1 / 3)
    assert float(metrics["top5"].compute()) == pytest.approx(2 / 3)
    assert float(metrics["CrossEntropy"].compute()) == pytest.approx(plain_loss(logits, labels))


def test_accuracy_counts_examples_and_not_classes():
    """Three of four of one class are right, and none of the other's one."""
    model = resnet("resnet10", 0.125, num_classes=6, stem="small")
    logits = torch.eye(6)[[0, 0, 0, 1, 2]]
    labels = torch.tensor([0, 0, 0, 0, 3])
    for train in (True, False):
        metrics = model.get_metrics(is_train=train)
        model.update_metric((None, labels), logits, metrics["top1"])
        assert float(metrics["top1"].compute()) == pytest.approx(3 / 5)


def test_five_classes_have_no_top5():
    metrics = {n: resnet("resnet10", 0.125, num_classes=n).get_metrics(is_train=False) for n in (5, 6)}
    assert metrics[5].keys() == {"CrossEntropy", "top1"}
    assert metrics[6].keys() == {"CrossEntropy", "top1", "top5"}
    assert resnet("resnet10", 0.125).get_metrics(is_train=True).keys() == {"CrossEntropy", "top1"}


def test_the_loss_is_cross_entropy():
    model = resnet("resnet10", 0.125, num_classes=4, stem="small")
    batch = torch.randn(5, 3, 8, 8), torch.tensor([0, 3, 1, 2, 2])
    logits = model(batch)
    assert model.loss(logits, batch).item() == pytest.approx(plain_loss(logits, batch[1]), rel=1e-6)


def plain_loss(logits, labels):
    shares = logits.double().exp() / logits.double().exp().sum(1, keepdim=True)
    return -sum(shares[i, label].log().item() for i, label in enumerate(labels)) / len(labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"model_type": "resent50"},
            "model.model_type 'resent50' is not a ResNet of known depth; nearest: resnet50",
        ),
        ({"model_type": "vgg"}, "model.model_type 'vgg' is not a ResNet of known depth"),
        ({"stem": "tiny"}, "model.stem is 'tiny'; it must be imagenet, small or small_stride2"),
        ({"init": "he"}, "model.init is 'he'; it must be torchvision or lecun"),
        ({"width": 0.005}, "model.width is 0.005; it must be at least 1/64, which is one filter"),
        ({"width": 0.00775}, "model.width is 0.00775; it must be at least 1/64, which is one filter"),
        ({"width": -1.0}, "model.width is -1.0; it must be at least 1/64, which is one filter"),
    ],
)
def test_what_there_is_not(options, message):
    with pytest.raises(ModelError) as error:
        resnet(**options)
    assert str(error.value) == message


def test_the_defaults():
    network = resnet().module
    assert shapes(network) == shapes(torchvision.models.resnet50(weights=None))


@pytest.mark.parametrize(
    ("stem", "taps"), [("imagenet", 64 * 49), ("small", 64 * 9), ("small_stride2", 64 * 9)]
)
def test_the_stem_starts_by_its_outputs(stem, taps):
    """As He et al. (arXiv 1502.01852) have it for ReLUs: a variance of 2 / fan-out."""
    weight = resnet("resnet10", channels=8, stem=stem).module.conv1.weight.detach()
    assert float(weight.var()) == pytest.approx(2 / taps, rel=0.1)
    assert abs(float(weight.mean())) < 0.05 * float(weight.std())


@pytest.mark.parametrize("depth", ["resnet18", "resnet29"])
def test_lecun_normal(depth):
    """A normal that is cut off at two of its deviations, with a variance of 1 / fan-in; biases are zero."""
    torch.manual_seed(0)
    network = resnet(depth, 0.5, num_classes=500, init="lecun").module
    layers = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    for layer in layers:
        weight = layer.weight.detach().double()
        scaled = weight * weight[0].numel() ** 0.5
        count = weight.numel()
        assert abs(float(scaled.mean())) < 5 / count**0.5
        assert float(scaled.var()) == pytest.approx(1, abs=5 * (1.37 / count) ** 0.5)  # of a kurtosis of 2.37
        assert 0.9 * 2 / 0.8796 < float(scaled.abs().max()) <= 2 / 0.8796
    assert not network.fc.bias.any()
    norms = [m.weight for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert sum(bool((weight == 0).all()) for weight in norms) == sum(BLOCKS[depth]), "as torchvision's"


@pytest.mark.parametrize(("depth", "layers"), [("resnet29", 29), ("resnet50", 50), ("resnet200", 200)])
def test_a_depth_is_the_number_of_its_layers(depth, layers):
    """Without projections of shortcuts, as He et al. count."""
    with torch.device("meta"):
        network = resnet(depth).module
    found = [name for name, m in network.named_modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert sum("downsample" not in name for name in found) == layers


def test_the_least_width():
    assert resnet("resnet10", 1 / 64, stem="small").module.fc.in_features == 8
