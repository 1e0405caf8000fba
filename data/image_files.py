"""Colour images, decoded, cropped and normalized as they are asked for."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from cadenza.data.augment import INCEPTION_COLUMNS, inception_box, uniform
from cadenza.data.image_config import ImageConfig
from cadenza.data.pictures import Pictures

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # of ImageNet, by channel, of values in [0, 1]
BICUBIC = InterpolationMode.BICUBIC

Example = tuple[Tensor, int]  # image (3, size, size) float32, normalized; its class


class ImageFiles(Dataset):
    """Images of `pictures`, decoded as they are asked for; indexed by draws, as `EpochSampler` gives them.

    Args:
        pictures: gives the image and the label at an index.
        order: (length,) which of them this data set has.
        cfg: sizes and augmentation.
        train: whether to augment.
        seed: the key of the hash that augmentation is drawn from.
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
        view = self._random(image, draw) if self.augment else self._central(image)
        values = F.to_dtype(F.pil_to_tensor(view), torch.float32, scale=True)
        return F.normalize(values, MEAN, STD), label

    # PIL images, which torchvision takes and its annotations don't know: hence Any.
    def _random(self, image: Any, draw: int) -> Any:
        at = uniform(self.seed, [draw], INCEPTION_COLUMNS)[0]
        box = inception_box(image.height, image.width, at)
        view = F.resized_crop(image, *box, size=[self.size, self.size], interpolation=BICUBIC)
        return F.horizontal_flip(view) if at[-1] < 0.5 else view

    def _central(self, image: Any) -> Any:
        resized = F.resize(image, [self.resize], interpolation=BICUBIC)
        return F.center_crop(resized, [self.size, self.size])
