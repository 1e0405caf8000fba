"""The schema of a recipe: the fields of these dataclasses are its keys, their types its types."""

import re
from dataclasses import dataclass, field

from cadenza.data.config import TextConfig, TokenizerConfig
from cadenza.data.image_config import ImageConfig

MASKED_ONLY = ("masking_schedule", "sequence_packing", "sparse_prediction")
IMAGES = "image_classification"
FOLDER_NAME = re.compile(r"\w[\w.+=,@ -]*(/\w[\w.+=,@ -]*)*")
OBJECTIVES = ("masked_lm", "causal_lm", IMAGES)


@dataclass
class Model:
    """A Hugging Face model, new from a config or loaded from a folder or the Hub.

    `objective`: `masked_lm`, or `causal_lm`, which takes windows of documents. `lora`: fields of peft's
    LoraConfig, such as `r`; adapters then train alone, and stand in `runs/NAME/adapter` at the end.
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
    """A new ResNet for `data`'s classes: `resnet18`, 34, 50, 101, 152 (10: half of 18), `width` times wide.

    `stem`: `imagenet`; for images of 28 to 64 pixels `small`, or `small_stride2`, a quarter of the work.
    """

    objective: str = IMAGES
    model_type: str = "resnet50"
    width: float = 1.0
    stem: str = "imagenet"
    channels_last: bool = False


@dataclass
class Optimizer:
    """`decoupled_adamw` (Composer's, weight decay not scaled by the rate), `adamw` or `sgd` (torch's).

    `betas` and `eps` are Adam's, `momentum` and `nesterov` those of SGD, whose weight decay is an L2 term.
    `decay_matrices_only` keeps biases and norms, all parameters of one dimension, from decaying.
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

    The last one ends its cosine, at `alpha_f`, when the cooldown of `t_cooldown` begins, which multiplies by
    a line to zero.
    """

    name: str = "linear_decay_with_warmup"
    t_warmup: str = "0.06dur"
    t_cooldown: str = "0dur"
    alpha_f: float = 0.02


@dataclass
class Train:
    """Duration, batch sizes and what Composer's Trainer is told. Times are Composer's: `70000ba`, `1ep`.

    `trust_load_path`: load `load_path` even where that could run code in it: a file that Composer downloads,
    or, before torch 2.10, any that isn't in the run's own folder.
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
    """What all recipes have. `algorithms` maps the registry's names to options; `false` leaves one out."""

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

    def _refuse(self, names: tuple[str, ...], objective: str) -> None:
        on = [name for name in names if self.algorithms.get(name, False) is not False]
        if on:
            raise ValueError(f"algorithms.{on[0]} is for masked_lm; model.objective is {objective}")


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
    """A recipe whose `model.objective` is `image_classification`."""

    model: ImageModel = field(default_factory=ImageModel)
    data: ImageConfig = field(default_factory=ImageConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._refuse(MASKED_ONLY, IMAGES)
