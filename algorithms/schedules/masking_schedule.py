"""Masking schedule: the share of masked tokens as a function of training progress."""

import itertools
from dataclasses import dataclass
from typing import Any

from composer.core import Algorithm, Event, State, Time
from composer.loggers import Logger

from cadenza.options import Range, Times, check, option
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.resume import refuse_another
from cadenza.surgery.runtime import progress, reached

__all__ = ["MaskingSchedule"]

RATIO = Range("(0, 1)")
INITIAL = 0.30
UNITS = ("ba", "ep", "sp", "tok", "dur")
ONE_UNIT = f"they must be of one unit: {', '.join(UNITS[:-1])} or {UNITS[-1]}"


@dataclass(eq=False)
class MaskingSchedule(Algorithm):
    """Moves the masking ratio linearly from `initial` to `final` over training, or in `stages`.

    MosaicBERT uses a constant 0.30. A schedule from 0.30 to 0.15 reached stock BERT's final GLUE score in
    1.89 times fewer steps than constant 0.15 (MosaicML's BERT-base runs, 70,000 steps). mmBERT (arXiv
    2509.06888) masks 0.30, then 0.15, then 0.05, a constant in each of its three phases.

    Works on any masked-LM collator with an attribute `mlm_probability`.

    It sets `mlm_probability` on the `collate_fn` of the train loader before each batch. Cadenza's collator
    masks in the main process, by a seed for each example, so the ratio is exact with any number of workers
    and after a resume. Transformers' `DataCollatorForLanguageModeling` works without workers.
    """

    initial: float | None = option(None, "The ratio at the start; null: 0.3, without `stages`.", RATIO)
    final: float | None = option(None, "The ratio at the end; null keeps `initial`.", RATIO)
    stages: dict | None = option(
        None,
        "In place of `initial` and `final`: constant ratios by the times at which they begin, such as "
        "`{0dur: 0.30, 0.6dur: 0.15, 0.9dur: 0.05}`. The times are of one unit, ascending from 0.",
    )

    def __post_init__(self) -> None:
        check(self, "masking_schedule ", SurgeryError)
        if self.stages is not None:
            both = [name for name in ("initial", "final") if getattr(self, name) is not None]
            if both:
                raise SurgeryError(
                    f"masking_schedule: {both[0]} and stages are set; leave one of the two out"
                )
            self._begins = _times(self.stages)
        if self.initial is None:
            self.initial = INITIAL

    def __repr__(self) -> str:
        """Without what isn't set, so that checkpoints of earlier versions are of the same schedule."""
        if self.stages is not None:
            return f"MaskingSchedule(stages={self.stages!r})"
        return f"MaskingSchedule(initial={self.initial!r}, final={self.final!r})"

    def ratio(self, progress: float) -> float:
        """The masking ratio at `progress`, 0 at the start and 1 at the end of training, without `stages`."""
        initial = INITIAL if self.initial is None else self.initial
        final = initial if self.final is None else self.final
        return initial + (final - initial) * min(max(progress, 0.0), 1.0)

    def ratio_at(self, state: State) -> float:
        """The masking ratio of the batch that `state` is about to train on."""
        if self.stages is None:
            return self.ratio(progress(state))
        begun = [ratio for time, ratio in self._begins if reached(state, time)]
        return begun[-1]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Check that the checkpoint was made under the same schedule.

        Raises:
            CheckpointError: it was made under another one.
        """
        refuse_another(self, state)

    def match(self, event: Event, state: State) -> bool:
        return event == Event.BEFORE_DATALOADER

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        ratio = self.ratio_at(state)
        _collator(state).mlm_probability = ratio
        logger.log_metrics({"masking_schedule/mlm_probability": ratio})


def _times(stages: dict) -> list[tuple[Time, float]]:
    """When each ratio begins; raises `SurgeryError` for what isn't a ratio, or a time in its turn."""
    for text, ratio in stages.items():
        if wrong := Times(zero=True).wrong(text):
            raise SurgeryError(f"masking_schedule: a time in stages is {text!r}; it must {wrong}")
        if wrong := RATIO.wrong(ratio):
            raise SurgeryError(f"masking_schedule: stages has {ratio!r} at {text}; it must {wrong}")
    found = [(Time.from_timestring(text), float(ratio)) for text, ratio in stages.items()]
    if not found or found[0][0].value:
        raise SurgeryError(f"masking_schedule: stages is {stages}; its first time must be 0, such as 0dur")
    units = {time.unit.value for time, _ in found}
    if len(units) > 1 or not units <= set(UNITS):
        raise SurgeryError(f"masking_schedule: stages has times in {', '.join(sorted(units))}; {ONE_UNIT}")
    for (before, _), (after, _) in itertools.pairwise(found):
        if before.value >= after.value:
            problem = f"stages has {after.to_timestring()} behind {before.to_timestring()}"
            raise SurgeryError(f"masking_schedule: {problem}; its times must ascend")
    return found


def _collator(state: State) -> Any:
    """The collator that masks, which must run in this process to see the ratio."""
    loader = state.dataloader
    collator: Any = getattr(loader, "collate_fn", None)
    if not hasattr(collator, "mlm_probability"):
        name = type(collator).__name__
        raise SurgeryError(f"masking_schedule needs a collate_fn with mlm_probability, not {name}")
    if getattr(loader, "num_workers", 0) and not hasattr(collator, "mask"):
        raise SurgeryError(
            f"masking_schedule can't set the ratio of {type(collator).__name__} in workers; use "
            "cadenza.data.MaskedLMCollator or num_workers=0"
        )
    return collator
