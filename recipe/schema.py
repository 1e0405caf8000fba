"""The schema of a recipe: the fields of these dataclasses are its keys, their types its types."""

from dataclasses import dataclass, field

from cadenza.data.config import TextConfig, TokenizerConfig

MASKED_ONLY = ("masking_schedule", "sequence_packing", "sparse_prediction")
OBJECTIVES = ("masked_lm", "causal_lm")


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
            raise ValueError(f"model.objective is {self.objective!r}; it must be {' or '.join(OBJECTIVES)}")


@dataclass
class Optimizer:
    """`decoupled_adamw` (Composer's, weight decay not scaled by the rate) or `adamw` (torch's)."""

    name: str = "decoupled_adamw"
    lr: float = 5e-4
    betas: list[float] = field(default_factory=lambda: [0.9, 0.98])
    eps: float = 1e-6
    weight_decay: float = 1e-5


@dataclass
class Scheduler:
    """`linear_decay_with_warmup`, `cosine_with_warmup` or `constant_with_warmup`."""

    name: str = "linear_decay_with_warmup"
    t_warmup: str = "0.06dur"
    alpha_f: float = 0.02


@dataclass
class Train:
    """Duration, batch sizes and what Composer's Trainer is told. Times are Composer's: `70000ba`, `1ep`."""

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
    autoresume: bool = False
    progress_bar: bool = True
    deterministic: bool = False
    parallelism_config: dict = field(default_factory=dict)


@dataclass
class Recipe:
    """All of a run. `algorithms` maps the registry's names to options; `false` leaves one out."""

    name: str = "run"
    seed: int = 17
    model: Model = field(default_factory=Model)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    data: TextConfig = field(default_factory=TextConfig)
    algorithms: dict = field(default_factory=dict)
    optimizer: Optimizer = field(default_factory=Optimizer)
    scheduler: Scheduler = field(default_factory=Scheduler)
    train: Train = field(default_factory=Train)
    loggers: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        on = [name for name in MASKED_ONLY if self.algorithms.get(name, False) is not False]
        if self.model.objective == "causal_lm" and on:
            raise ValueError(f"algorithms.{on[0]} is for masked_lm; model.objective is causal_lm")
