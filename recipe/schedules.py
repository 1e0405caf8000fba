"""Learning-rate schedules that Composer lacks."""

import math

from composer.core import State, Time, TimeUnit
from composer.optim import ComposerScheduler

from cadenza.recipe.errors import RecipeError
from cadenza.surgery.training_time import progress


class CosineWithCooldown(ComposerScheduler):
    """A linear warmup, a cosine to `alpha_f` that ends as the cooldown begins, times a line to zero.

    AQT's (arXiv 2105.03536): of 250 epochs 5 warm up, 195 are the cosine's, and the last 50 cool down.
    """

    def __init__(self, t_warmup: str, t_cooldown: str, alpha_f: float) -> None:
        self.t_warmup, self.t_cooldown, self.alpha_f = t_warmup, t_cooldown, alpha_f

    def __call__(self, state: State, ssr: float = 1.0) -> float:
        warm, cool = share(self.t_warmup, state), share(self.t_cooldown, state)
        now = progress(state)
        if now < warm:
            return now / warm
        along = min((now - warm) / max(1 - warm - cool, 1e-9), 1.0)
        cosine = self.alpha_f + (1 - self.alpha_f) * (1 + math.cos(math.pi * along)) / 2
        return cosine * min((1 - now) / cool, 1.0) if cool else cosine


def share(text: str, state: State) -> float:
    """The share of all of training that a time is.

    Raises:
        RecipeError: the time is in another unit than the duration, and can't be told in it.
    """
    time, end = Time.from_timestring(text), state.max_duration
    if time.unit == TimeUnit.DURATION or end is None:
        return float(time.value)
    per_epoch = state.dataloader_len and int(state.dataloader_len)
    if time.unit == end.unit:
        return time.value / end.value
    if {time.unit, end.unit} == {TimeUnit.EPOCH, TimeUnit.BATCH} and per_epoch:
        ratio = time.value / end.value
        return ratio * per_epoch if time.unit == TimeUnit.EPOCH else ratio / per_epoch
    raise RecipeError(
        f"scheduler: {text} can't be told as a share of {end}; write it in that unit, or as 0.05dur"
    )
