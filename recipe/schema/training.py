"""The schema of a recipe's sections `optimizer`, `scheduler` and `train`."""

from dataclasses import dataclass

from cadenza.options import Choice, Range, Text, Times, option

COUNT = Range("[1, 2147483647]")
ADAM = ("optimizer.name", ("decoupled_adamw", "adamw", "stable_adamw", "muon"))
SGD = ("optimizer.name", ("sgd",))
MUON = ("optimizer.name", ("muon",))
DECAYS = ("linear_decay_with_warmup", "cosine_with_warmup", "cosine_with_cooldown")
STABLE = "warmup_stable_decay"
SCHEDULES = (*DECAYS, "constant_with_warmup", STABLE)


@dataclass
class Optimizer:
    """The optimizer of all parameters."""

    name: str = option(
        "decoupled_adamw",
        "`decoupled_adamw` (Composer's: weight decay isn't scaled by `lr`), `adamw` or `sgd` (torch's; its "
        "weight decay is an L2 term), `muon` (torch's, for the matrices of the layers; `decoupled_adamw` for "
        "the rest, weight decay as there for both), `stable_adamw` (torch-optimi's, update clipping by RMS).",
        Choice("decoupled_adamw", "adamw", "sgd", "muon", "stable_adamw"),
    )
    lr: float = option(5e-4, "The peak learning rate.", Range("[0, 1000]"))
    betas: list[float] = option(
        [0.9, 0.98], "Decay rates of Adam's two averages.", Range("[0, 1)"), length=2, only=ADAM
    )
    eps: float = option(1e-6, "What Adam adds to the denominator.", Range("(0, 1]"), only=ADAM)
    weight_decay: float = option(1e-5, "Weight decay.", Range("[0, 10]"))
    momentum: float = option(0.9, "Momentum of SGD.", Range("[0, 1)"), only=SGD)
    nesterov: bool = option(False, "Nesterov's momentum.", only=SGD)
    muon_lr: float | None = option(
        None, "The peak learning rate of the layers' matrices; null: `lr`.", Range("(0, 1000]"), only=MUON
    )
    muon_momentum: float = option(0.95, "Momentum of Muon.", Range("[0, 1)"), only=MUON)
    muon_nesterov: bool = option(True, "Nesterov's momentum in Muon.", only=MUON)
    muon_adjust_lr: str = option(
        "match_rms_adamw",
        "What `muon_lr` is multiplied by for a matrix of (A, B): `match_rms_adamw` 0.2 sqrt(max(A, B)), so "
        "that updates are as large as AdamW's (arXiv 2502.16982), `original` sqrt(max(1, A / B)).",
        Choice("match_rms_adamw", "original"),
        only=MUON,
    )
    decay_matrices_only: bool = option(
        False, "Exempt parameters of one dimension, biases and norms, from weight decay."
    )

    def __post_init__(self) -> None:
        if self.name == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError("optimizer.momentum is 0, but optimizer.nesterov needs one; set one above 0")


@dataclass
class Scheduler:
    """The learning rate over training."""

    name: str = option(
        "linear_decay_with_warmup",
        "The schedule. In `cosine_with_cooldown` the decay ends where the cooldown begins, a line from "
        "`alpha_f` to zero. In `warmup_stable_decay` the rate stays at `lr` until the cooldown, a decay to "
        "`alpha_f` that can start from any earlier checkpoint.",
        Choice(*SCHEDULES),
    )
    t_warmup: str = option("0.06dur", "The time of the linear warmup from zero.", Times(zero=True))
    t_cooldown: str = option(
        "0dur",
        "The time of the cooldown.",
        Times(zero=True),
        only=("scheduler.name", ("cosine_with_cooldown", STABLE)),
    )
    decay: str = option(
        "1-sqrt",
        "The cooldown after the share x of it: 1 - sqrt(x) or 1 - x (arXiv 2405.18392).",
        Choice("linear", "1-sqrt"),
        only=("scheduler.name", (STABLE,)),
    )
    alpha_f: float = option(
        0.02,
        "The fraction of `lr` at the end of the decay.",
        Range("[0, 1]"),
        only=("scheduler.name", (*DECAYS, STABLE)),
    )

    def __post_init__(self) -> None:
        if self.name == STABLE and self.t_warmup.endswith("dur"):
            raise ValueError(
                f"scheduler.t_warmup is {self.t_warmup}, a share of train.max_duration, which may be another "
                f"in the run of a decay; {STABLE} needs a time such as 100ba"
            )


@dataclass
class Train:
    """Duration, batch sizes and options of Composer's Trainer. Times are Composer's: `70000ba`, `1ep`."""

    max_duration: str = option("1ep", "How long to train.", Times(share=False))
    global_batch_size: int = option(256, "Samples of a batch, over all devices.", COUNT)
    eval_batch_size: int | None = option(
        None, "Samples of a batch of evaluation, over all devices; null: `global_batch_size`.", COUNT
    )
    device_train_microbatch_size: int | str = option(
        "auto",
        "Samples that a device computes at once. `auto`: Composer's search on CUDA, the whole batch on a "
        "CPU.",
        Range("[1, 2147483647]", words=("auto",), whole=True),
    )
    clip_norm: float | None = option(
        None,
        "The largest norm of the gradient of all parameters together, over all micro-batches and devices; a "
        "larger gradient is scaled down to it. null: no clipping.",
        Range("(0, 1e9]"),
    )
    precision: str = option(
        "auto",
        "`auto`: bfloat16 autocast on CUDA, and on a CPU whose products are 1.3 times as fast in it; else "
        "fp32.",
        Choice("auto", "fp32", "amp_bf16", "amp_fp16", "amp_fp8"),
    )
    eval_interval: str = option("1ep", "The time between evaluations.", Times())
    eval_first: bool = option(
        False, "Evaluate before the first batch too; the record has the scores before and after training."
    )
    run_folder: str = option("runs", "The folder in which each run has a folder `name`.", Text())
    save_interval: str | None = option(None, "The time between checkpoints; null: no checkpoints.", Times())
    keep_checkpoints: int | None = option(None, "How many of the newest checkpoints stay; null: all.", COUNT)
    load_path: str | None = option(None, "A checkpoint to go on from.", Text())
    load_weights_only: bool = option(
        False, "Take the weights of `load_path` alone, and train from the start."
    )
    trust_load_path: bool = option(
        False,
        "Load `load_path` even if that could run code in it: a file that Composer downloads, or, before "
        "torch 2.10, a file outside the run's own folder.",
    )
    autoresume: bool = option(False, "Go on from the latest checkpoint of the run, if there is one.")
    progress_bar: bool = option(True, "Show one.")
    deterministic: bool = option(False, "Torch's deterministic kernels.")
    compile_layers: bool = option(
        False,
        "Compile each layer by `torch.compile`, after the surgeries: on an H100 MosaicBERT-base's steps took "
        "0.81 of the time. The first batch waits for the compiler: half a minute on one thread of a CPU.",
    )
    parallelism_config: dict = option(
        {},
        "`{fsdp: {...}}` or `{fsdp2: {...}}` with fields of Composer's configs, to shard over CUDA devices.",
    )

    def __post_init__(self) -> None:
        if self.load_weights_only and self.load_path is None:
            raise ValueError("train.load_weights_only is true; it needs train.load_path, the file to load")
