"""Learning-rate schedules that Composer lacks."""

import math

from composer.core import State, Time, TimeUnit
from composer.optim import ComposerScheduler

from cadenza.recipe.errors import RecipeError
from cadenza.surgery.runtime import progress

POWERS = {"linear": 1.0, "1-sqrt": 0.5}
SLACK = 1e-6  # of a multiplier: rounding


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


class WarmupStableDecay(ComposerScheduler):
    """Linear warmup, then one, then a decay to `alpha_f` over the last `t_cooldown` of training.

    Before the decay the multiplier is a function of the time alone, not of the duration, so that a decay of
    any duration can start from any checkpoint of the stable phase (arXiv 2405.18392). There the share x of
    the decay gives 1 - x (`linear`) or 1 - sqrt(x) (`1-sqrt`), scaled to end at `alpha_f`.
    """

    def __init__(self, t_warmup: str, t_cooldown: str, alpha_f: float, decay: str) -> None:
        self.t_warmup, self.t_cooldown = Time.from_timestring(t_warmup), t_cooldown
        self.alpha_f, self.power = alpha_f, POWERS[decay]

    def __call__(self, state: State, ssr: float = 1.0) -> float:
        elapsed = self._elapsed(state)
        if elapsed < self.t_warmup.value:
            return elapsed / self.t_warmup.value
        return self.after_warmup(progress(state), state)

    def after_warmup(self, done: float, state: State) -> float:
        """The multiplier where the share `done` of training is done, if no warm-up is left."""
        cool = share(self.t_cooldown, state)
        if 1 - done >= cool:
            return 1.0
        part = min(1 - (1 - done) / cool, 1.0)
        return self.alpha_f + (1 - self.alpha_f) * (1 - part**self.power)

    def refuse_jump(self, state: State) -> None:
        """Raise if the resumed training in `state` would go on at another rate than it ended with.

        Composer's rates lag a batch behind, so the rate at the end of a checkpoint is one of the last two.

        Raises:
            RecipeError: the decay would have begun before the checkpoint, or began there by another plan.
        """
        batch, now = state.timestamp.batch.value, progress(state)
        group = state.optimizers[0].param_groups[0]
        if now >= 1 or batch < 3 or self._elapsed(state) * (batch - 2) / batch < self.t_warmup.value:
            return
        found = group["lr"] / group["initial_lr"] if group["initial_lr"] else 1.0
        late, early = (self.after_warmup(now * (batch - back) / batch, state) for back in (0, 2))
        if not late - SLACK <= found <= early + SLACK:
            end = "starts before" if found >= 1 else "isn't the one of"
            raise RecipeError(
                f"scheduler: the decay {end} the checkpoint of batch {batch}, whose learning rate is "
                f"{found:.4g} of its peak, not {late:.4g}: resume from a checkpoint before the decay, or set "
                f"train.max_duration to at least its time and scheduler.t_cooldown"
            )

    def _elapsed(self, state: State) -> float:
        """The time since the start in the unit of the warm-up; a part of an epoch counts by its batches."""
        now, unit = state.timestamp, self.t_warmup.unit
        if unit == TimeUnit.EPOCH and state.dataloader_len is not None:
            return now.epoch.value + now.batch_in_epoch.value / int(state.dataloader_len)
        return now.get(unit).value


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
