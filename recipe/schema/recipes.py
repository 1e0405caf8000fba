"""The schema of whole recipes: a class for each kind, whose fields are the sections."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from cadenza.data.images.config import ImageConfig
from cadenza.data.labelled.config import LabelledConfig
from cadenza.data.text.config import TextConfig
from cadenza.data.text.tokenizer_config import TokenizerConfig
from cadenza.options import Range, Text, option
from cadenza.recipe.schema.models import IMAGES, TEXT_CLASSES, ClassifierModel, ImageModel, Model
from cadenza.recipe.schema.training import Optimizer, Scheduler, Train

MASKED_ONLY = ("masking_schedule", "sequence_packing", "sparse_prediction")
FOLDER_NAME = re.compile(r"\w[\w.+=,@ -]*(/\w[\w.+=,@ -]*)*")


@dataclass
class Run:
    """The sections of every recipe."""

    sources = ()  # what it was loaded from, with names; no key
    name: str = option("run", "The run's folder in `train.run_folder`; may have '/'.", Text())
    seed: int = option(17, "Of weights, order, masks and augmentation.", Range("[0, 4294967295]"))
    algorithms: dict = option({}, "Techniques by name, with their options; `false` leaves one out.")
    optimizer: Optimizer = field(default_factory=Optimizer)
    scheduler: Scheduler = field(default_factory=Scheduler)
    train: Train = field(default_factory=Train)
    loggers: dict = option(
        {}, "Composer's loggers by name, with their options: console, file, mlflow, tensorboard, wandb."
    )

    def __post_init__(self) -> None:
        if not FOLDER_NAME.fullmatch(self.name):
            raise ValueError(
                f"name is {self.name!r}; it must name a folder within train.run_folder: letters, digits, "
                "spaces and . _ - + = , @, beginning with a letter or a digit, with '/' between folders"
            )
        for key in ("t_warmup", "t_cooldown"):
            self._refuse_other_unit(key)
        if self.train.clip_norm is not None and self._chosen("gradient_clipping"):
            both = "each clips the gradient; leave one of the two out"
            raise ValueError(f"train.clip_norm and algorithms.gradient_clipping are set: {both}")
        if self._chosen("batch_size_warmup"):
            self._refuse_growth()

    def _refuse_growth(self) -> None:
        """Raise for a batch that can't grow, or times in epochs, whose numbers of batches then differ."""
        key, full = "algorithms.batch_size_warmup.initial", self.train.global_batch_size
        initial = self.algorithms["batch_size_warmup"].get("initial", 0)
        if isinstance(initial, int) and initial >= full:
            raise ValueError(f"{key} is {initial}; it must be below train.global_batch_size, {full}")
        times = {"train.max_duration": self.train.max_duration}
        times |= {f"scheduler.{key}": getattr(self.scheduler, key) for key in ("t_warmup", "t_cooldown")}
        for key, time in times.items():
            if time.endswith("ep"):
                right = "name it in batches, samples or tokens"
                raise ValueError(
                    f"{key} is {time}, but algorithms.batch_size_warmup grows the batch; {right}"
                )

    def _refuse_other_unit(self, key: str) -> None:
        """Raise if a time of the schedule can't be converted to the unit of the duration."""
        from composer.core import Time  # here, since it imports torch

        asked, end = getattr(self.scheduler, key), self.train.max_duration
        time, units = Time.from_timestring(asked), {Time.from_timestring(t).unit.value for t in (asked, end)}
        if time.value and time.unit.value != "dur" and len(units) > 1 and units != {"ep", "ba"}:
            right = "name a time in the same unit, or a share such as 0.06dur"
            raise ValueError(f"scheduler.{key} is {asked}, but train.max_duration is {end}; {right}")

    @property
    def folder(self) -> Path:
        """The folder of everything that the run writes."""
        return Path(self.train.run_folder) / self.name

    @property
    def checkpoints(self) -> Path:
        """The folder of the run's checkpoints."""
        return self.folder / "checkpoints"

    def _refuse(self, names: tuple[str, ...], objective: str) -> None:
        if chosen := [name for name in names if self._chosen(name)]:
            raise ValueError(f"algorithms.{chosen[0]} is for masked_lm; model.objective is {objective}")

    def _chosen(self, name: str) -> bool:
        return self.algorithms.get(name, False) is not False


@dataclass
class Recipe(Run):
    """A recipe for a language model."""

    model: Model = field(default_factory=Model)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    data: TextConfig = field(default_factory=TextConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self._chosen("sequence_packing") and self._chosen("anchor_attention"):
            packed = "algorithms.sequence_packing packs rows of masked_lm"
            raise ValueError(f"{packed}, anchor_attention windows of causal_lm; leave one of the two out")
        if self.model.lora and self.tokenizer.new_tokens is not None:
            untrained = "model.lora trains adapters alone, and keeps no new rows of the embedding"
            raise ValueError(f"tokenizer.new_tokens: {untrained}; leave one of the two out")
        if self.model.objective == "causal_lm":
            self._refuse(MASKED_ONLY, "causal_lm")
        elif self._chosen("anchor_attention"):
            raise ValueError("algorithms.anchor_attention is for causal_lm; model.objective is masked_lm")
        if self._chosen("distillation"):
            kinds = f"{IMAGES} and {TEXT_CLASSES}; model.objective is {self.model.objective}"
            raise ValueError(f"algorithms.distillation is for classifiers: {kinds}")


@dataclass
class ClassificationRecipe(Run):
    """A recipe for a text classifier: `model.objective` is `text_classification`."""

    model: ClassifierModel = field(default_factory=ClassifierModel)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    data: LabelledConfig = field(default_factory=LabelledConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._refuse(("masking_schedule", "sparse_prediction"), TEXT_CLASSES)
        if self._chosen("seq_length_warmup"):
            kinds = f"language models; model.objective is {TEXT_CLASSES}"
            raise ValueError(f"algorithms.seq_length_warmup is for {kinds}, whose labels don't go by token")
        if self._chosen("anchor_attention"):
            raise ValueError(
                f"algorithms.anchor_attention is for causal_lm; model.objective is {TEXT_CLASSES}"
            )
        if self._chosen("distillation"):
            self._refuse_distillation()
        if self.tokenizer.new_tokens is not None:
            raise ValueError("tokenizer.new_tokens is for language models; train one with it, then fine-tune")

    def _refuse_distillation(self) -> None:
        if not self.data.classes:
            raise ValueError("algorithms.distillation is for classes; data.target is number")
        if self._chosen("sequence_packing"):
            packed = "algorithms.sequence_packing makes rows of several texts, which the teacher doesn't know"
            raise ValueError(f"{packed}; leave it or algorithms.distillation out")


@dataclass
class ImageRecipe(Run):
    """A recipe for an image classifier: `model.objective` is `image_classification`."""

    model: ImageModel = field(default_factory=ImageModel)
    data: ImageConfig = field(default_factory=ImageConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._refuse(MASKED_ONLY, IMAGES)
