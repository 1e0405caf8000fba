"""Sets of colour images by index: folders in ImageNet's layout, and image data sets on the Hub."""

from pathlib import Path
from typing import Any

from PIL import Image
from torchvision.datasets import ImageFolder

from cadenza.data import hub
from cadenza.data.errors import DataError
from cadenza.data.image_config import ImageConfig

Picture = tuple[Image.Image, int]  # RGB, and the number of its class

ADVICE = "check the name and the network, or set data.source to digits, fashion_mnist or a folder"


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
        except Exception as error:  # decoders raise what they like
            text = f"data.source: {path} is not a whole image ({error}); replace it, or take it out"
            raise DataError(text) from error


def _classes(folder: Path) -> int:
    """How many class folders `train` has; those of `val` must be the same, or labels would mean others."""
    names = {}
    for part in ("train", "val"):
        if not (folder / part).is_dir():
            raise DataError(
                f"data.source: there is no folder {folder / part}; it takes train/CLASS and val/CLASS"
            )
        names[part] = {path.name for path in (folder / part).iterdir() if path.is_dir()}
        if not names[part]:
            raise DataError(
                f"data.source: {folder / part} is empty; it takes a folder of images for each class"
            )
    if odd := sorted(names["train"] ^ names["val"]):
        raise DataError(
            f"data.source: only one of train and val in {folder} has the class {odd[0]}; both must"
        )
    return len(names["train"])


class HubPictures:
    """A split of an image data set on the Hub, downloaded once, and read from the cache after that."""

    def __init__(self, cfg: ImageConfig, train: bool) -> None:
        self.split = cfg.split if train else cfg.eval_split
        self.rows = _load(cfg.source, self.split)
        self.name, self.image, self.label = cfg.source, cfg.image_field, cfg.label_field
        for key in ("image_field", "label_field"):
            if (field := getattr(cfg, key)) not in self.rows.column_names:
                there = ", ".join(self.rows.column_names)
                raise DataError(f"data.{key}: {cfg.source} has no {field!r}, but {there}")
        self.classes = getattr(self.rows.features[self.label], "num_classes", None) or self._counted()

    def _counted(self) -> int:
        """The number of classes of a set that doesn't say it."""
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
        except Exception as error:  # decoders raise what they like
            raise DataError(
                f"data.image_field: {self.image!r} of {where} is not an image ({error})"
            ) from error
        if not (isinstance(label, int) and 0 <= label < self.classes):
            raise DataError(f"data.label_field: {where} has the label {label}, of {self.classes} classes")
        return image, label


Pictures = FolderPictures | HubPictures


def pictures(cfg: ImageConfig, train: bool) -> Pictures:
    """The training or the evaluation images of a folder or of a Hub data set.

    Raises:
        DataError: nothing there, not reachable, or not laid out as it should be.
    """
    folder = Path(cfg.source).expanduser()
    if folder.is_dir():
        return FolderPictures(folder, train)
    if cfg.source.startswith((".", "/", "~")) or cfg.source.count("/") > 1:
        raise DataError(f"data.source: there is no folder {cfg.source}")
    return HubPictures(cfg, train)


def _load(name: str, split: str) -> Any:
    from datasets import load_dataset

    if not hub.reachable():
        raise DataError(
            f"data.source: there is no folder {name}, and data set {name!r} can't be reached: "
            f"the Hub doesn't answer; {ADVICE}"
        )
    try:
        return load_dataset(name, split=split)
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise DataError(f"data.source: data set {name!r} can't be read ({reason}); {ADVICE}") from error
