"""Build what a recipe's sections name: techniques, scheduler, loggers, batch sizes."""

from collections.abc import Callable, Sequence
from typing import Any

from composer.algorithms import GradientClipping
from composer.core import Algorithm, Time, TimeUnit
from composer.optim import (
    ComposerScheduler,
    ConstantScheduler,
    ConstantWithWarmupScheduler,
    CosineAnnealingScheduler,
    CosineAnnealingWithWarmupScheduler,
    LinearScheduler,
    LinearWithWarmupScheduler,
)
from composer.utils import MissingConditionalImportError

from cadenza.algorithms import REGISTRY
from cadenza.recipe import schema
from cadenza.recipe.callbacks import show
from cadenza.recipe.errors import RecipeError, nearest
from cadenza.recipe.methods import COMPOSERS, REPLACING
from cadenza.recipe.schedules import CosineWithCooldown, WarmupStableDecay
from cadenza.surgery import in_order

SCHEDULERS = {
    "linear_decay_with_warmup": LinearWithWarmupScheduler,
    "cosine_with_warmup": CosineAnnealingWithWarmupScheduler,
    "constant_with_warmup": ConstantWithWarmupScheduler,
    "cosine_with_cooldown": CosineWithCooldown,
    "warmup_stable_decay": WarmupStableDecay,
}
# The same schedules; those with a warm-up warn of one of 0, even if the recipe says 0.
WITHOUT_WARMUP: dict[Any, Callable[[float], ComposerScheduler]] = {
    LinearWithWarmupScheduler: lambda alpha_f: LinearScheduler(alpha_f=alpha_f),
    CosineAnnealingWithWarmupScheduler: lambda alpha_f: CosineAnnealingScheduler(alpha_f=alpha_f),
    ConstantWithWarmupScheduler: lambda _: ConstantScheduler(),
}
LOGGERS = {
    "console": "ConsoleLogger",
    "file": "FileLogger",
    "mlflow": "MLFlowLogger",
    "tensorboard": "TensorboardLogger",
    "wandb": "WandBLogger",
}


def algorithms(chosen: dict[str, dict[str, Any]]) -> list[Algorithm]:
    """The algorithms of a recipe, in the order in which they are applied.

    Composer's that replace modules come first, so that they replace none that a technique has changed.
    `distillation` comes last, after those that scale the loss of the labels.
    """
    chosen = dict(sorted(chosen.items(), key=lambda pair: pair[0] == "distillation"))
    first = [COMPOSERS[name](**options) for name, options in chosen.items() if name in REPLACING]
    methods = {**COMPOSERS, **REGISTRY}
    others = (methods[name](**options) for name, options in chosen.items() if name not in REPLACING)
    return first + in_order(others)


def clipping(norm: float | None) -> list[Algorithm]:
    """Composer's clipping of the gradient's norm; none for None."""
    return [] if norm is None else [GradientClipping("norm", norm)]


def packs_rows(algorithms: Sequence[Algorithm]) -> bool:
    """Whether one of the techniques needs packed training rows."""
    return any(getattr(algorithm, "packs_rows", False) for algorithm in algorithms)


def _warms_up(warmup: str, max_duration: str) -> bool:
    """Whether the warm-up is above zero; a share of less than one batch, or sample or token, is none.

    How many batches an epoch has isn't known yet.
    """
    time, end = Time.from_timestring(warmup), Time.from_timestring(max_duration)
    if time.unit != TimeUnit.DURATION or end.unit == TimeUnit.EPOCH:
        return time.value > 0
    if 0 < time.value < 1 / end.value:
        show(f"no warm-up: scheduler.t_warmup {warmup} of train.max_duration {max_duration} is less than one")
    return time.value * end.value >= 1


def scheduler(section: schema.Scheduler, max_duration: str = "1ep") -> ComposerScheduler:
    """The learning-rate schedule of a run of `max_duration`."""
    cls = _choose("scheduler.name", section.name, SCHEDULERS)
    if not _warms_up(section.t_warmup, max_duration) and cls in WITHOUT_WARMUP:
        return WITHOUT_WARMUP[cls](section.alpha_f)
    if cls is ConstantWithWarmupScheduler:
        return cls(t_warmup=section.t_warmup)
    if cls is CosineWithCooldown:
        return cls(section.t_warmup, section.t_cooldown, section.alpha_f)
    if cls is WarmupStableDecay:
        return cls(section.t_warmup, section.t_cooldown, section.alpha_f, section.decay)
    return cls(t_warmup=section.t_warmup, alpha_f=section.alpha_f)


def loggers(section: dict[str, Any]) -> list[Any]:
    """Composer's loggers, from a mapping of names to options; `false` leaves one out."""
    import composer.loggers

    built = []
    for name, options in section.items():
        cls = getattr(composer.loggers, _choose(f"loggers.{name}", name, LOGGERS))
        if options is False:
            continue
        if not isinstance(options, dict | bool | None):
            raise RecipeError(f"loggers.{name} must be a mapping, not {options!r}")
        try:
            built.append(cls(**(options if isinstance(options, dict) else {})))
        except (TypeError, MissingConditionalImportError) as error:
            raise RecipeError(f"loggers.{name}: {' '.join(str(error).split())}") from error
    return built


def microbatch_size(asked: int | str, device_batch: int, cuda: bool) -> int | str:
    """The size of a micro-batch: `auto` means Composer's search on CUDA and the whole batch on a CPU."""
    if asked == "auto":
        return "auto" if cuda else device_batch
    if isinstance(asked, str) or asked < 1:
        key = "train.device_train_microbatch_size"
        raise RecipeError(f"{key} is {asked!r}; it must be auto or a positive int")
    return min(asked, device_batch)


def per_device(batch: int, world_size: int, key: str) -> int:
    """The samples of a global batch that each of `world_size` devices gets."""
    if batch < 1 or batch % world_size:
        raise RecipeError(f"{key} is {batch}; it must be a multiple of the {world_size} devices")
    return batch // world_size


def _choose(key: str, name: str, table: dict[str, Any]) -> Any:
    if name not in table:
        raise RecipeError(f"{key}: {name!r} is unknown; {nearest(name, table)}")
    return table[name]
