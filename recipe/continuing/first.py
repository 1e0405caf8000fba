"""`train.eval_first`: the scores before the first batch, which a checkpoint keeps for the run's record."""

from typing import Any

from composer import Trainer
from composer.core import Callback, DataSpec, State
from composer.utils import reproducibility

from cadenza.recipe.callbacks import show
from cadenza.recipe.continuing.scores import before_and_after, of_others, of_own

Scores = dict[str, dict[str, float | None]]


class FirstEvaluation(Callback):
    """Holds the scores; a run that is resumed has those of its start."""

    def __init__(self) -> None:
        self.scores: Scores | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"scores": self.scores}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scores = state["scores"]


def evaluate_first(trainer: Trainer, others: dict[str, DataSpec]) -> None:
    """Evaluate on all texts if the recipe says so and nothing was trained yet.

    Random numbers are left as they were, so that training is the same without it. With workers Composer draws
    one number more at the start of training if none of them runs yet: dropout then drops others.
    """
    first = holder(trainer.state)
    if first is None:
        return
    if trainer.state.timestamp.batch.value > 0:
        if first.scores is None:
            show("no scores from before training: the checkpoint's run had no train.eval_first")
        return
    random = reproducibility.get_rng_state()
    trainer.eval()
    first.scores = {**of_own(trainer), **of_others(trainer, others)}
    reproducibility.load_rng_state(random)


def texts(trainer: Trainer, others: dict[str, DataSpec]) -> dict[str, Any]:
    """The record's `texts`; none for a run that evaluates its own data alone, at its end alone."""
    first = holder(trainer.state)
    before = None if first is None else first.scores
    if before is None and not others:
        return {}
    return before_and_after(before, {**of_own(trainer), **of_others(trainer, others)})


def holder(state: State) -> FirstEvaluation | None:
    """The callback of the run; None if it doesn't evaluate first."""
    return next((each for each in state.callbacks if isinstance(each, FirstEvaluation)), None)
