"""The schema of a recipe's section `model`, for text and for images."""

from dataclasses import dataclass

from cadenza.options import Choice, Range, Text, option

IMAGES = "image_classification"
TEXT_CLASSES = "text_classification"
OBJECTIVES = ("masked_lm", "causal_lm", TEXT_CLASSES, IMAGES)


@dataclass
class Model:
    """A Hugging Face model, new from a config or loaded from a folder or the Hub."""

    objective: str = option(
        "masked_lm",
        "`masked_lm`, or `causal_lm`, which trains on windows of documents; `text_classification` makes the "
        "recipe one of labelled text, `image_classification` one of images.",
        Choice(*OBJECTIVES),
    )
    model_type: str = option(
        "bert", "The transformers model type of a new model; without `pretrained`.", Text()
    )
    pretrained: str | None = option(None, "A folder or a name on the Hub to load weights from.", Text())
    attention: str = option("sdpa", "The stock implementation of attention.", Choice("sdpa", "eager"))
    config: dict = option({}, "Fields of the model's config.")
    gradient_checkpointing: bool = option(
        False, "Compute activations again in the backward pass instead of keeping them."
    )
    lora: dict = option(
        {},
        "Fields of peft's LoraConfig, such as `r`; then adapters alone are trained, and are written to "
        "`runs/NAME/adapter`.",
    )

    def __post_init__(self) -> None:
        if must := Choice(*OBJECTIVES).wrong(self.objective):
            raise ValueError(f"model.objective is {self.objective!r}; it must {must}")


@dataclass
class ClassifierModel:
    """A Hugging Face encoder or decoder with a head for the labels of `data`."""

    objective: str = option(TEXT_CLASSES, "`text_classification`.", Choice(TEXT_CLASSES))
    model_type: str = option(
        "bert", "The transformers model type of a new model; without `pretrained`.", Text()
    )
    pretrained: str | None = option(
        None,
        "A folder, a name on the Hub, a run's folder or one of its checkpoints to load weights from; the "
        "head is new, unless the weights are of a classifier with the same labels.",
        Text(),
    )
    attention: str = option("sdpa", "The stock implementation of attention.", Choice("sdpa", "eager"))
    config: dict = option({}, "Fields of the model's config.")
    gradient_checkpointing: bool = option(
        False, "Compute activations again in the backward pass instead of keeping them."
    )


@dataclass
class ImageModel:
    """A new ResNet for the classes of `data`."""

    objective: str = option(IMAGES, "`image_classification`.", Choice(IMAGES))
    model_type: str = option(
        "resnet50",
        "The depth; `resnet10` is half of 18.",
        Choice(
            *("resnet10", "resnet18", "resnet29", "resnet34"),
            *("resnet50", "resnet101", "resnet152", "resnet200"),
        ),
    )
    width: float = option(1.0, "Multiplies the channels.", Range("[0.015625, 64]"))
    stem: str = option(
        "imagenet",
        "For images of 28 to 64 pixels `small`, or `small_stride2`, which takes a quarter of the work.",
        Choice("imagenet", "small", "small_stride2"),
    )
    init: str = option(
        "torchvision",
        "How weights start: as torchvision has them, or as AQT has them, normal by their inputs.",
        Choice("torchvision", "lecun"),
    )
    channels_last: bool = option(False, "The memory layout that tensor cores need.")
