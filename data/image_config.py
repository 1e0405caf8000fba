"""The schema of a recipe's `data` section for image classification."""

from dataclasses import dataclass

from cadenza.data.errors import DataError

IN_MEMORY = ("digits", "fashion_mnist")
AUGMENTATIONS = ("inception", "crop_flip", "flip", "none")


@dataclass
class ImageConfig:
    """Where images come from and how they become batches.

    Args:
        source: `digits` (scikit-learn's 1,797 of 8x8, a fifth of them for evaluation), `fashion_mnist`, a
            folder with `train/CLASS/*.jpg` and `val/CLASS/*.jpg`, or the name of an image data set on the
            Hub.
        root: the folder of fashion_mnist's four files; null: where Debian's package dataset-fashion-mnist
            puts them. The files of any set in the same format will do.
        split, eval_split: splits of a Hub data set.
        image_field, label_field: the fields of a Hub data set that hold the image and its class.
        image_size: side in pixels of what the model sees, of folders and Hub data sets; digits and
            fashion_mnist keep their own.
        eval_resize: shorter side in pixels before the centre crop of `image_size`.
        augmentation: of training images. Of folders and Hub data sets `inception`: a random crop of 8 to
            100 % of the area, its sides at 3:4 to 4:3, resized; then a flip. Of digits and fashion_mnist
            `crop_flip`: a crop of their own size from the image within a black border of an eighth of its
            side; then a flip; or `flip` alone. `none` for both: as in evaluation.
        train_images, eval_images: at most so many, chosen by chance; null: all.
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
        self._check_augmentation()
        if self.eval_resize < self.image_size:
            raise DataError(
                f"data.eval_resize is {self.eval_resize}; "
                f"it must be at least data.image_size, which is {self.image_size}"
            )
        least_of = {"image_size": 1, "num_workers": 0, "train_images": 1, "eval_images": 1}
        for key, least in least_of.items():
            value = getattr(self, key)
            if value is not None and value < least:
                raise DataError(f"data.{key} is {value}; it must be at least {least}")

    def _check_augmentation(self) -> None:
        if self.augmentation not in AUGMENTATIONS:
            said = " or ".join(AUGMENTATIONS)
            raise DataError(f"data.augmentation is {self.augmentation!r}; it must be {said}")
        fitting = AUGMENTATIONS[1:] if self.in_memory else ("inception", "none")
        if self.augmentation not in fitting:
            said = " or ".join(fitting)
            raise DataError(
                f"data.augmentation is {self.augmentation!r}; "
                f"with data.source {self.source} it must be {said}"
            )

    @property
    def in_memory(self) -> bool:
        """Whether the source is one of small images that are held in memory."""
        return self.source in IN_MEMORY
