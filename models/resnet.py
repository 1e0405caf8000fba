"""ResNets for image classification as Composer models: torchvision's, of any width, also for small images."""

import math
from typing import Any

import torch.nn.functional as F
from composer.metrics import LanguageCrossEntropy
from composer.models import ComposerClassifier
from torch import nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from cadenza.models.errors import ModelError, nearest_field

# Blocks of each of the four stages (He et al., arXiv 1512.03385, table 1; 29 and 200 are those of arXiv
# 2105.03536); 10 is 18 with half of its blocks.
DEPTHS: dict[str, tuple[Any, list[int]]] = {
    "resnet10": (BasicBlock, [1, 1, 1, 1]),
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet29": (Bottleneck, [2, 2, 3, 2]),
    "resnet34": (BasicBlock, [3, 4, 6, 3]),
    "resnet50": (Bottleneck, [3, 4, 6, 3]),
    "resnet101": (Bottleneck, [3, 4, 23, 3]),
    "resnet152": (Bottleneck, [3, 8, 36, 3]),
    "resnet200": (Bottleneck, [3, 24, 36, 3]),
}
STEMS = ("imagenet", "small", "small_stride2")
INITS = ("torchvision", "lecun")
CUT = 0.87962566103423978  # the standard deviation of a standard normal that is cut off at -2 and 2


class ScaledResNet(ResNet):
    """torchvision's ResNet with `width` times the filters.

    Args:
        block, layers: torchvision's block class, and the number of blocks in each stage.
        width: factor of the filters of all blocks; the `imagenet` stem keeps its 64, as in arXiv 2105.03536.
        num_classes: outputs.
        channels: of the images.
        stem: `imagenet`, 7 x 7 at stride 2 and pooling; for images of 28 to 64 pixels `small`, 3 x 3 at
            stride 1, or `small_stride2`, 3 x 3 at stride 2, which computes a quarter as much. Small stems
            have `width` times 64 filters.
    """

    def __init__(
        self, block: Any, layers: list[int], width: float, num_classes: int, channels: int, stem: str
    ) -> None:
        self.width, self.stem = width, stem
        super().__init__(block, layers, num_classes=num_classes, zero_init_residual=True)
        self.fc = nn.Linear(self.inplanes, num_classes)
        self.conv1 = self._first(channels)
        if stem != "imagenet":
            self.bn1, self.maxpool = nn.BatchNorm2d(self.conv1.out_channels), nn.Identity()

    def _first(self, channels: int) -> nn.Conv2d:
        shape = {"imagenet": (7, 2, 3), "small": (3, 1, 1), "small_stride2": (3, 2, 1)}[self.stem]
        conv = nn.Conv2d(channels, self._stem_filters(), *shape, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        return conv

    def _stem_filters(self) -> int:
        return 64 if self.stem == "imagenet" else round(64 * self.width)

    def _make_layer(self, block: Any, planes: int, *args: Any, **kwargs: Any) -> nn.Sequential:
        if planes == 64:  # the first stage, which the stem feeds
            self.inplanes = self._stem_filters()
        return super()._make_layer(block, round(planes * self.width), *args, **kwargs)


def resnet(
    model_type: str = "resnet50",
    width: float = 1.0,
    num_classes: int = 1000,
    channels: int = 3,
    stem: str = "imagenet",
    init: str = "torchvision",
) -> ComposerClassifier:
    """A ResNet as a Composer model with cross-entropy, top-1 and top-5; arguments as in `ScaledResNet`.

    By `init` "torchvision" weights of convolutions start by their outputs (He et al., arXiv 1502.01852), by
    "lecun" as `lecun_normal_` says. Batches are (images (batch, channels, height, width), labels (batch,)).
    The last batch norm of each block starts at zero (Goyal et al., arXiv 1706.02677).

    Raises:
        ModelError: unknown depth, stem or init, or a width that leaves a stage without filters.
    """
    if model_type not in DEPTHS:
        hint = nearest_field(model_type, DEPTHS)
        raise ModelError(f"model.model_type {model_type!r} is not a ResNet of known depth{hint}")
    if stem not in STEMS:
        raise ModelError(f"model.stem is {stem!r}; it must be {', '.join(STEMS[:-1])} or {STEMS[-1]}")
    if init not in INITS:
        raise ModelError(f"model.init is {init!r}; it must be {' or '.join(INITS)}")
    if round(64 * width) < 1:
        raise ModelError(f"model.width is {width}; it must be at least 1/64, which is one filter")
    network = ScaledResNet(*DEPTHS[model_type], width, num_classes, channels, stem)
    if init == "lecun":
        lecun_normal_(network)
    return classifier(network, num_classes)


def lecun_normal_(network: nn.Module) -> None:
    """Start convolutions and linear layers of `network` as flax does, and so AQT: biases are zero.

    Weights are normal with a variance of 1 / fan-in after they are cut off at two standard deviations.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            std = 1 / math.sqrt(module.weight[0].numel()) / CUT
            nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def classifier(network: nn.Module, num_classes: int) -> ComposerClassifier:
    """A network from images to logits as a Composer model, with top-1 and, beyond five classes, top-5."""
    return ComposerClassifier(
        network, num_classes, _metrics(num_classes, [1]), _metrics(num_classes, [1, 5]), F.cross_entropy
    )


def _metrics(num_classes: int, tops: list[int]) -> MetricCollection:
    accuracies: dict[str, Any] = {
        f"top{k}": MulticlassAccuracy(num_classes, top_k=k, average="micro") for k in tops if k < num_classes
    }
    return MetricCollection({"CrossEntropy": LanguageCrossEntropy(), **accuracies})  # a mean over examples
