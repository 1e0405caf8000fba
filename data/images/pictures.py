"""Sets of colour images by index: folders in ImageNet's layout, and image data sets on the Hub."""

from pathlib import Path
from typing import Any

from PIL import Image
from torchvision.datasets import ImageFolder

from cadenza.data import hub
from cadenza.data.errors import DataError, check_field
from cadenza.data.images.config import ImageConfig

Picture = tuple[Image.Image, int]  # RGB, and the number of its class

ADVICE = "no folder has this name either; check name and network, or use digits, fashion_mnist or a folder"


class FolderPictures:
    """The images of `folder/train` or `folder/val`; the folders of `train`, sorted, are the classes."""

    def __init__(self, folder: Path, train: bool) -> None:
        part = folder / ("train" if train else "val")
        self.classes = _classes(folder)
        try:
            self.samples = ImageFolder(str(part)).samples
        except FileNotFoundError as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"data.source: {part} has a class without images ({reason})") from error

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Picture:
        path, label = self.samples[index]
        try:
            with open(path, "rb") as file:
                return Image.open(file).convert("RGB"), label
        except Exception as error:  # decoders raise errors of any type
            problem = f"data.source: {path} is not a whole image ({error}); replace it, or take it out"
            raise DataError(problem) from error


def _classes(folder: Path) -> int:
    """The number of class folders in `train`; `val` must have the same, since labels are their numbers."""
    names = {}
    for part in (folder / "train", folder / "val"):
        if not part.is_dir():
            raise DataError(f"data.source: there is no folder {part}; add train/CLASS and val/CLASS")
        names[part.name] = {path.name for path in part.iterdir() if path.is_dir()}
        if not names[part.name]:
            raise DataError(f"data.source: {part} is empty; it needs a folder of images for each class")
    if unpaired := sorted(names["train"] ^ names["val"]):
        problem = f"only one of train and val in {folder} has the class {unpaired[0]}"
        raise DataError(f"data.source: {problem}; both must have it")
    return len(names["train"])


class HubPictures:
    """A split of an image data set on the Hub, downloaded once, then read from the cache."""

    def __init__(self, cfg: ImageConfig, train: bool) -> None:
        from datasets import load_dataset

        self.split = cfg.split if train else cfg.eval_split
        self.name, self.image, self.label = cfg.source, cfg.image_field, cfg.label_field
        with hub.reading(self.name, ADVICE):
            self.rows: Any = load_dataset(self.name, split=self.split)
        check_field("image_field", self.image, self.rows.column_names, self.name)
        check_field("label_field", self.label, self.rows.column_names, self.name)
        self.classes = getattr(self.rows.features[self.label], "num_classes", None) or self._count_classes()

    def _count_classes(self) -> int:
        """The number of classes, from the labels: for a data set that doesn't state it."""
        labels = list(self.rows[self.label])
        if not all(isinstance(label, int) for label in labels):
            raise DataError(f"data.label_field: {self.label!r} of {self.name} holds no whole numbers")
        return max(labels, default=-1) + 1

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Picture:
        where = f"row {index} of {self.name}, split {self.split}"
        try:
            row = self.rows[index]
            image, label = row[self.image].convert("RGB"), row[self.label]
        except Exception as error:  # decoders raise errors of any type
            problem = f"data.image_field: {self.image!r} of {where} is not an image ({error})"
            raise DataError(problem) from error
        if not (isinstance(label, int) and 0 <= label < self.classes):
            limit = self.classes - 1
            raise DataError(f"data.label_field: {where} has the label {label}; it must be 0 to {limit}")
        return image, label


Pictures = FolderPictures | HubPictures


def pictures(cfg: ImageConfig, train: bool) -> Pictures:
    """The training or the evaluation images of a folder or of a Hub data set.

    Raises:
        DataError: no such folder or data set, not reachable, or a folder, field or label is wrong.
    """
    folder = Path(cfg.source).expanduser()
    if folder.is_dir():
        return FolderPictures(folder, train)
    if cfg.source.startswith((".", "/", "~")) or cfg.source.count("/") > 1:
        raise DataError(f"data.source: there is no folder {cfg.source}")
    return HubPictures(cfg, train)
