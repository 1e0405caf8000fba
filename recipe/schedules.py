"""Learning-rate schedules that Composer lacks."""

import math

from composer.core import State, Time, TimeUnit
from composer.optim import ComposerScheduler

from cadenza.recipe.errors import RecipeError
from cadenza.surgery.runtime import progress


class CosineWithCooldown(ComposerScheduler):
    """Linear warmup, then a cosine to `alpha_f`, then `alpha_f` times a line from one to zero.

    The schedule of AQT (arXiv 2105.03536): of 250 epochs, 5 warm up, 195 are the cosine, 50 the cooldown.
    """

    def __init__(self, t_warmup: str, t_cooldown: str, alpha_f: float) -> None:
        self.t_warmup, self.t_cooldown, self.alpha_f = t_warmup, t_cooldown, alpha_f

    def __call__(self, state: State, ssr: float = 1.0) -> float:
        warm, cool = share(self.t_warmup, state), share(self.t_cooldown, state)
        now = progress(state)
        if now < warm:
            return now / warm
        fraction = min((now - warm) / max(1 - warm - cool, 1e-9), 1.0)
        cosine = self.alpha_f + (1 - self.alpha_f) * (1 + math.cos(math.pi * fraction)) / 2
        return cosine * min((1 - now) / cool, 1.0) if cool else cosine


def share(text: str, state: State) -> float:
    """The time `text` as a fraction of all of training.

    Raises:
        RecipeError: the time can't be converted to the unit of the duration.
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
        f"scheduler: {text} can't be converted to the unit of {end}; use that unit, or write 0.05dur"
    )
