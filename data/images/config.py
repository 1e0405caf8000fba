"""The schema of a recipe's `data` section for image classification."""

from dataclasses import dataclass

from cadenza.data.errors import DataError
from cadenza.options import Choice, Range, Text, check, option

IN_MEMORY = ("digits", "fashion_mnist")
AUGMENTATIONS = ("inception", "crop_flip", "flip", "none")
COUNT = Range("[1, 2147483647]")
SIDE = Range("[1, 65536]")


@dataclass
class ImageConfig:
    """Where images come from and how they become batches."""

    source: str = option(
        "digits",
        "`digits` (scikit-learn's 1,797 of 8x8, a fifth of them for evaluation), `fashion_mnist`, a folder "
        "with `train/CLASS/*.jpg` and `val/CLASS/*.jpg`, or the name of an image data set on the Hub.",
        Text(),
    )
    root: str | None = option(
        None,
        "The folder of fashion_mnist's four files, or of another data set in the same format; null: where "
        "Debian's package dataset-fashion-mnist puts them.",
        Text(),
        only=("data.source", ("fashion_mnist",)),
    )
    split: str = option("train", "The Hub data set's split to train on.", Text())
    eval_split: str = option("validation", "The Hub data set's split to evaluate on.", Text())
    image_field: str = option("image", "The Hub data set's field with the image.", Text())
    label_field: str = option("label", "The Hub data set's field with the class.", Text())
    image_size: int = option(
        224,
        "Side in pixels of the model's input, for folders and Hub data sets. Images of digits and "
        "fashion_mnist keep their size.",
        SIDE,
    )
    eval_resize: int = option(
        256, "Shorter side in pixels before the centre crop of `image_size`, at least `image_size`.", SIDE
    )
    augmentation: str = option(
        "none",
        "Of training images; `none`: as in evaluation. For folders and Hub data sets `inception`: a random "
        "crop of 8 to 100 % of the area with sides at 3:4 to 4:3, resized; then a random flip. For digits "
        "and fashion_mnist `crop_flip`: a random crop to the original size after a black border of an "
        "eighth of the width was added; then a random flip. Or `flip` alone.",
        Choice(*AUGMENTATIONS),
    )
    train_images: int | None = option(
        None, "The largest number of images to train on, chosen at random; null: all.", COUNT
    )
    eval_images: int | None = option(
        None, "The largest number of images to evaluate on, chosen at random; null: all.", COUNT
    )
    num_workers: int = option(0, "Processes that load, for each device.", Range("[0, 1024]"))

    def __post_init__(self) -> None:
        check(self, "data.", DataError)
        fitting = Choice(*(AUGMENTATIONS[1:] if self.in_memory else ("inception", "none")))
        if must := fitting.wrong(self.augmentation):
            found = f"data.augmentation is {self.augmentation!r}"
            raise DataError(f"{found}; with data.source {self.source} it must {must}")
        size, resize = self.image_size, self.eval_resize
        if resize < size:
            raise DataError(f"data.eval_resize is {resize}; it must be at least data.image_size, {size}")

    @property
    def in_memory(self) -> bool:
        """Whether the source is a set of small images, which are held in memory."""
        return self.source in IN_MEMORY
