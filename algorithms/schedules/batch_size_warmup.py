"""Batch size warm-up: the batch grows from a small size to the full one."""

from dataclasses import dataclass
from typing import Any

from composer.core import Algorithm, Event, State, Time, TimeUnit
from composer.loggers import Logger
from composer.utils import dist

from cadenza.options import Range, Times, check, option
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.resume import refuse_another

__all__ = ["BatchSizeWarmup"]

ROWS = Range("[1, 2147483647]", whole=True)
COUNTED = (TimeUnit.BATCH, TimeUnit.SAMPLE)


@dataclass(eq=False)
class BatchSizeWarmup(Algorithm):
    """Grows the batch from `initial` rows of all devices to the loader's batch size.

    The size is `initial`, and grows by `step` at equal intervals until `until`. It is a pure function of the
    number of the batch, so a resume at any batch goes on with the same sizes. The rows come in the order that
    they have in batches of one size, each once an epoch. ModernBERT (arXiv 2412.13663) grows its batch over
    its first 50 billion tokens.

    Use it where a small batch learns as much from a row early in training, in more and cheaper steps. The
    duration of training and the learning rate's schedule go by the unit of `max_duration`: in batches, a run
    sees fewer rows than without it; in samples or tokens, it takes more batches. An epoch has another number
    of batches than the next one, so a duration in epochs is refused.

    Works on the training loaders of `cadenza.data`, prepared text, labelled text and images, with any number
    of workers. A stream is refused, because what each of its processes reads depends on the batch size.
    """

    initial: int = option(meaning="The rows of the first batch, over all devices.", valid=ROWS)
    until: str = option(
        "0.1dur",
        "When the batch has its full size: a time in batches or samples, or a share of a duration in one of "
        "these.",
        Times(),
    )
    step: int | None = option(
        None, "The rows by which the batch grows at a time, over all devices; null: `initial`.", ROWS
    )

    def __post_init__(self) -> None:
        check(self, "batch_size_warmup ", SurgeryError)
        time = Time.from_timestring(self.until)
        if time.unit not in (*COUNTED, TimeUnit.DURATION):
            raise SurgeryError(f"batch_size_warmup until is {self.until}; it must be in ba, sp or dur")

    def growth(self, full: int, end: Time) -> dict[str, Any]:
        """The arguments of the loader's `grow`, for a run that lasts until `end`.

        Args:
            full: the rows of a batch of the full size, over all devices.

        Raises:
            SurgeryError: sizes or times that don't fit.
        """
        time = Time.from_timestring(self.until)
        if self.initial >= full:
            raise SurgeryError(f"{NAME}: initial is {self.initial}; it must be below the batch size, {full}")
        if end.unit == TimeUnit.EPOCH:
            problem = "epochs have different numbers of batches while the batch grows"
            raise SurgeryError(f"{NAME}: max_duration is {end.to_timestring()}, but {problem}; {RIGHT}")
        if time.unit == TimeUnit.DURATION:
            if end.unit not in COUNTED:
                given = f"until is {self.until} of {end.to_timestring()}"
                raise SurgeryError(f"{NAME}: {given}, but tokens are counted later; name it in ba or sp")
            time = Time(int(time.value * end.value), end.unit)
        step, by_rows = self.step or self.initial, time.unit == TimeUnit.SAMPLE
        return {"initial": self.initial, "step": step, "until": int(time.value), "by_rows": by_rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Check that the checkpoint was made under the same warm-up.

        Raises:
            CheckpointError: it was made under another one.
        """
        refuse_another(self, state)

    def match(self, event: Event, state: State) -> bool:
        return event in (Event.FIT_START, Event.EPOCH_START, Event.BATCH_START)

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        loader: Any = state.dataloader
        if event == Event.BATCH_START:
            size = loader.growing.growth.size(int(state.timestamp.batch))
            logger.log_metrics({"batch_size_warmup/global_batch_size": size})
            return
        if not hasattr(loader, "grow") or state.max_duration is None:
            raise SurgeryError(f"{NAME}: {type(loader).__name__} has batches of one size; {LOADERS}")
        devices = dist.get_world_size()
        growth = self.growth(loader.batch_size * devices, state.max_duration)
        _refuse_uneven(growth, devices)
        loader.grow(int(state.timestamp.batch), int(state.timestamp.batch_in_epoch), **growth)
        state.dataloader_len = -1  # it is read anew, since this epoch has its own number of batches


NAME = "batch_size_warmup"
RIGHT = "name it in ba, sp or tok"
LOADERS = "it needs a training loader of cadenza.data over a source that isn't a stream"


def _refuse_uneven(growth: dict[str, Any], devices: int) -> None:
    for name in ("initial", "step"):
        if growth[name] % devices:
            right = f"it must be a multiple of the {devices} devices"
            raise SurgeryError(f"{NAME}: {name} is {growth[name]}; {right}")
