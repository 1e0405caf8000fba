"""The schema of a recipe's `data` section for image classification."""

from dataclasses import dataclass

from cadenza.data.errors import DataError, check_choice, check_minimum

IN_MEMORY = ("digits", "fashion_mnist")
AUGMENTATIONS = ("inception", "crop_flip", "flip", "none")


@dataclass
class ImageConfig:
    """Where images come from and how they become batches.

    Args:
        source: `digits` (scikit-learn's 1,797 of 8x8, a fifth of them for evaluation), `fashion_mnist`, a
            folder with `train/CLASS/*.jpg` and `val/CLASS/*.jpg`, or the name of an image data set on the
            Hub.
        root: the folder of fashion_mnist's four files, or of another data set in the same format; null: where
            Debian's package dataset-fashion-mnist puts them.
        split, eval_split: splits of a Hub data set.
        image_field, label_field: the fields of a Hub data set that hold the image and its class.
        image_size: side in pixels of the model's input, for folders and Hub data sets. Images of digits and
            fashion_mnist keep their size.
        eval_resize: shorter side in pixels before the centre crop of `image_size`.
        augmentation: of training images; `none`: as in evaluation. For folders and Hub data sets `inception`:
            a random crop of 8 to 100 % of the area with sides at 3:4 to 4:3, resized; then a random flip. For
            digits and fashion_mnist `crop_flip`: a random crop to the original size after a black border of
            an eighth of the width was added; then a random flip. Or `flip` alone.
        train_images, eval_images: the largest number of images, chosen at random; null: all.
        num_workers: processes that load, for each device.
    """

    source: str = "digits"
    root: str | None = None
    split: str = "train"
    eval_split: str = "validation"
    image_field: str = "image"
    label_field: str = "label"
    image_size: int = 224
    eval_resize: int = 256
    augmentation: str = "none"
    train_images: int | None = None
    eval_images: int | None = None
    num_workers: int = 0

    def __post_init__(self) -> None:
        check_choice("augmentation", self.augmentation, AUGMENTATIONS)
        fitting = AUGMENTATIONS[1:] if self.in_memory else ("inception", "none")
        check_choice("augmentation", self.augmentation, fitting, f"with data.source {self.source} ")
        size, resize = self.image_size, self.eval_resize
        if resize < size:
            raise DataError(f"data.eval_resize is {resize}; it must be at least data.image_size, {size}")
        check_minimum(self, image_size=1, num_workers=0, train_images=1, eval_images=1)

    @property
    def in_memory(self) -> bool:
        """Whether the source is a set of small images, which are held in memory."""
        return self.source in IN_MEMORY
