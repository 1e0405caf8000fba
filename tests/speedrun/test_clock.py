"""The clock: it stands during evaluations, and counts all else. Time passes here at chosen events alone."""

import pytest
from clock import Clock, Stopwatch
from composer.core import Callback
from evaluation import Pretraining
from records import found

from cadenza.recipe.run import built_of
from cadenza.recipe.trainer import trainer_settings


class Ticks(Callback):
    """Lets a second pass at each event called `at`."""

    def __init__(self, at):
        self.now = 0.0
        setattr(self, at, self.tick)

    def tick(self, state, logger):
        self.now += 1


def test_a_stopwatch_sums_what_passes_while_it_runs():
    times = iter([1.0, 3.0, 10.0, 10.5])
    watch = Stopwatch(lambda: next(times))
    for act in ("stop", "start", "start", "stop", "start", "stop", "stop"):
        getattr(watch, act)()
    assert watch.total == 2.5


def trained(place, at="init"):
    """The clock and the trainer of four batches with two evaluations."""
    place.make("01_x", **{"optimizer.lr": 0.01})
    recipe = found("01_x", place.track).recipe("train.progress_bar=false", "train.eval_interval=0.5dur")
    clock, ticks = Clock(), Ticks(at)
    clock.wall.now = lambda: ticks.now
    settings = {**trainer_settings(recipe), "callbacks": [clock, ticks]}
    trainer = built_of(Pretraining(recipe, place.track), settings).trainer
    trainer.fit()
    trainer.close()
    return clock, trainer


@pytest.mark.parametrize("event", ["eval_start", "eval_batch_end", "eval_end", "fit_start", "fit_end"])
def test_what_is_not_training_does_not_count(place, event):
    clock, _ = trained(place, event)
    assert clock.wall.total == 0
    assert len(clock.curve) == 2


@pytest.mark.parametrize(
    ("event", "times"),
    [("before_dataloader", 4), ("after_dataloader", 4), ("batch_start", 4), ("batch_end", 4)],
)
def test_all_of_training_counts(place, event, times):
    clock, _ = trained(place, event)
    assert clock.wall.total == times
    assert [row["seconds"] for row in clock.curve] == [times / 2, times]


def test_training_begins_anew_behind_an_evaluation(place):
    """What passes between the two evaluations counts: a checkpoint's event follows the first."""
    clock, _ = trained(place, "batch_checkpoint")
    assert clock.wall.total == 3, "the fourth batch ends training"


def test_the_curve_has_each_evaluation_once(place):
    clock, trainer = trained(place)
    assert [row["batch"] for row in clock.curve] == [2, 4]
    own = float(trainer.state.eval_metrics["eval"]["LanguageCrossEntropy"].compute())
    assert clock.curve[-1]["loss"] == own
    assert clock.cpu.total > 0
