"""The schema of a recipe: the fields of these dataclasses are the keys, with the types of their values."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from cadenza.data.images.config import ImageConfig
from cadenza.data.text.config import TextConfig, TokenizerConfig

MASKED_ONLY = ("masking_schedule", "sequence_packing", "sparse_prediction")
IMAGES = "image_classification"
FOLDER_NAME = re.compile(r"\w[\w.+=,@ -]*(/\w[\w.+=,@ -]*)*")
OBJECTIVES = ("masked_lm", "causal_lm", IMAGES)


@dataclass
class Model:
    """A Hugging Face model, new from a config or loaded from a folder or the Hub.

    `objective`: `masked_lm`, or `causal_lm`, which trains on windows of documents. `lora`: fields of peft's
    LoraConfig, such as `r`; then adapters alone are trained, and are written to `runs/NAME/adapter`.
    """

    objective: str = "masked_lm"
    model_type: str = "bert"
    pretrained: str | None = None
    attention: str = "sdpa"
    config: dict = field(default_factory=dict)
    gradient_checkpointing: bool = False
    lora: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ValueError(f"model.objective is {self.objective!r}; it must be {', '.join(OBJECTIVES)}")


@dataclass
class ImageModel:
    """A new ResNet for the classes of `data`: `resnet18`, 34, 50, 101 or 152; `resnet10` is half of 18.

    `width` multiplies the channels. `stem`: `imagenet`; for images of 28 to 64 pixels `small`, or
    `small_stride2`, which takes a quarter of the work.
    """

    objective: str = IMAGES
    model_type: str = "resnet50"
    width: float = 1.0
    stem: str = "imagenet"
    channels_last: bool = False


@dataclass
class Optimizer:
    """`decoupled_adamw` (Composer's: weight decay isn't scaled by `lr`), `adamw` or `sgd` (torch's).

    `betas` and `eps` belong to Adam; `momentum` and `nesterov` to SGD, whose weight decay is an L2 term.
    `decay_matrices_only` exempts all parameters of one dimension: biases and norms.
    """

    name: str = "decoupled_adamw"
    lr: float = 5e-4
    betas: list[float] = field(default_factory=lambda: [0.9, 0.98])
    eps: float = 1e-6
    weight_decay: float = 1e-5
    momentum: float = 0.9
    nesterov: bool = False
    decay_matrices_only: bool = False


@dataclass
class Scheduler:
    """`linear_decay_with_warmup`, `cosine_with_warmup`, `constant_with_warmup` or `cosine_with_cooldown`.

    `alpha_f` is the fraction of `lr` at the end of the decay. In `cosine_with_cooldown` the decay ends where
    the cooldown of `t_cooldown` begins, a line from `alpha_f` to zero.
    """

    name: str = "linear_decay_with_warmup"
    t_warmup: str = "0.06dur"
    t_cooldown: str = "0dur"
    alpha_f: float = 0.02


@dataclass
class Train:
    """Duration, batch sizes and options of Composer's Trainer. Times are Composer's: `70000ba`, `1ep`.

    `trust_load_path`: load `load_path` even if that could run code in it: a file that Composer downloads, or,
    before torch 2.10, a file outside the run's own folder.
    """

    max_duration: str = "1ep"
    global_batch_size: int = 256
    eval_batch_size: int | None = None
    device_train_microbatch_size: int | str = "auto"
    precision: str = "auto"
    eval_interval: str = "1ep"
    run_folder: str = "runs"
    save_interval: str | None = None
    load_path: str | None = None
    load_weights_only: bool = False
    trust_load_path: bool = False
    autoresume: bool = False
    progress_bar: bool = True
    deterministic: bool = False
    parallelism_config: dict = field(default_factory=dict)


@dataclass
class Run:
    """The sections of every recipe. `algorithms` maps technique names to options; `false` leaves one out."""

    name: str = "run"
    seed: int = 17
    algorithms: dict = field(default_factory=dict)
    optimizer: Optimizer = field(default_factory=Optimizer)
    scheduler: Scheduler = field(default_factory=Scheduler)
    train: Train = field(default_factory=Train)
    loggers: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not FOLDER_NAME.fullmatch(self.name):
            raise ValueError(
                f"name is {self.name!r}; it must name a folder within train.run_folder: letters, digits, "
                "spaces and . _ - + = , @, beginning with a letter or a digit, with '/' between folders"
            )

    @property
    def folder(self) -> Path:
        """The folder of everything that the run writes."""
        return Path(self.train.run_folder) / self.name

    @property
    def checkpoints(self) -> Path:
        """The folder of the run's checkpoints."""
        return self.folder / "checkpoints"

    def _refuse(self, names: tuple[str, ...], objective: str) -> None:
        chosen = [name for name in names if self.algorithms.get(name, False) is not False]
        if chosen:
            raise ValueError(f"algorithms.{chosen[0]} is for masked_lm; model.objective is {objective}")


@dataclass
class Recipe(Run):
    """A recipe for a language model."""

    model: Model = field(default_factory=Model)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    data: TextConfig = field(default_factory=TextConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model.objective == "causal_lm":
            self._refuse(MASKED_ONLY, "causal_lm")


@dataclass
class ImageRecipe(Run):
    """A recipe for an image classifier: `model.objective` is `image_classification`."""

    model: ImageModel = field(default_factory=ImageModel)
    data: ImageConfig = field(default_factory=ImageConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._refuse(MASKED_ONLY, IMAGES)
