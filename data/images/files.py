"""Colour images, decoded, cropped and normalized when they are read."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from cadenza.data.draws import Drawn, uniform
from cadenza.data.images.augment import INCEPTION_COLUMNS, inception_box
from cadenza.data.images.config import ImageConfig
from cadenza.data.images.pictures import Pictures

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # of ImageNet's channels, for values in [0, 1]
BICUBIC = InterpolationMode.BICUBIC

Example = tuple[Tensor, int]  # image (3, size, size) float32, normalized; its class


class ImageFiles(Drawn):
    """Images of `pictures`, decoded when they are read and indexed by draw.

    Args:
        pictures: image and label by index.
        order: (length,) int64, the indices in `pictures` of the images that this data set has.
        cfg: sizes and augmentation.
        train: whether to augment.
        seed: the key of the hash that augmentation is computed from.
    """

    def __init__(
        self, pictures: Pictures, order: np.ndarray, cfg: ImageConfig, train: bool, seed: int
    ) -> None:
        self.pictures, self.order, self.seed = pictures, order, seed
        self.size, self.resize = cfg.image_size, cfg.eval_resize
        self.augment = train and cfg.augmentation == "inception"

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, draw: int) -> Example:
        image, label = self.pictures[int(self.order[draw % len(self)])]
        view = self._random_crop(image, draw) if self.augment else self._centre_crop(image)
        values = F.to_dtype(F.pil_to_tensor(view), torch.float32, scale=True)
        return F.normalize(values, MEAN, STD), label

    # Any: PIL images, which torchvision's functions take but their annotations don't name.
    def _random_crop(self, image: Any, draw: int) -> Any:
        random = uniform(self.seed, [draw], INCEPTION_COLUMNS)[0]
        box = inception_box(image.height, image.width, random)
        view = F.resized_crop(image, *box, size=[self.size, self.size], interpolation=BICUBIC)
        return F.horizontal_flip(view) if random[-1] < 0.5 else view

    def _centre_crop(self, image: Any) -> Any:
        resized = F.resize(image, [self.resize], interpolation=BICUBIC)
        return F.center_crop(resized, [self.size, self.size])
