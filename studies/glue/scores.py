"""Scores: means of metrics, their spread over seeds, the best learning rate, averages and differences."""

import json
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cadenza.studies.checks import StudyError
from cadenza.studies.glue.recipes import PRETRAINED, Cell
from cadenza.studies.glue.settings import Glue
from cadenza.studies.intervals import Interval, interval


@dataclass(frozen=True)
class Score:
    """A model's score in a task: with the best of `rates` learning rates, for each seed, from 0 to 1."""

    model: str
    task: str
    start: str
    learning_rate: float
    rates: int
    seeds: dict[int, float]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(self.seeds.values())

    @property
    def deviation(self) -> float:
        """The standard deviation over the seeds; NaN of one seed, or of a score that isn't finite."""
        known = len(self.seeds) > 1 and not math.isnan(self.mean)
        return statistics.stdev(self.seeds.values()) if known else math.nan


@dataclass(frozen=True)
class Average:
    """The mean of the tasks' means, `after` other tasks or not; `lacking` names tasks without a score."""

    model: str
    after: bool
    scores: list[Score]
    lacking: list[str]

    @property
    def mean(self) -> float:
        """NaN if a task has no score."""
        return math.nan if self.lacking else statistics.fmean(score.mean for score in self.scores)

    @property
    def seeds(self) -> dict[int, float]:
        """The average of each seed; empty if the tasks have different seeds."""
        first = self.scores[0].seeds if self.scores else {}
        if any(score.seeds.keys() != first.keys() for score in self.scores):
            return {}
        return {seed: statistics.fmean(score.seeds[seed] for score in self.scores) for seed in first}


def score(cfg: Glue, cell: Cell, row: dict[str, Any]) -> float:
    """The mean of the task's metrics in a cell; NaN if one of them wasn't finite.

    Raises:
        StudyError: a metric wasn't measured.
    """
    found = json.loads(row["metrics"])
    for name in cfg.task(cell.task).metrics:
        if name not in found:
            raise StudyError(f"tasks.{cell.task}.metrics: {cell.name} has no {name!r} but {', '.join(found)}")
    values = [found[name] for name in cfg.task(cell.task).metrics]
    return math.nan if None in values else statistics.fmean(values)


def scores(cfg: Glue, rows: dict[Cell, Any]) -> list[Score]:
    """The score of each model, task and start, of the rate with the highest mean; of equals, the smaller."""
    found: dict[tuple[str, str, str], dict[float, dict[int, float]]] = {}
    for cell, row in rows.items():
        rates = found.setdefault(cell[:3], {})
        rates.setdefault(cell.learning_rate, {})[cell.seed] = score(cfg, cell, row)
    return [_best(key, rates) for key, rates in found.items()]


def _best(key: tuple[str, str, str], rates: dict[float, dict[int, float]]) -> Score:
    each = [Score(*key, rate, len(rates), seeds) for rate, seeds in rates.items()]
    return max(each, key=lambda score: (not math.isnan(score.mean), score.mean, -score.learning_rate))


def averages(cfg: Glue, found: Iterable[Score]) -> list[Average]:
    """Of each model: with the tasks that have `after` from there, if any; and all from the model itself."""
    by_key = {(score.model, score.task, score.start): score for score in found}
    kinds = [True, False] if cfg.sources() else [False]
    return [_average(cfg, by_key, model, after) for model in cfg.models for after in kinds]


def _average(cfg: Glue, by_key: dict[Any, Score], model: str, after: bool) -> Average:
    starts = {name: (after and cfg.task(name).after) or PRETRAINED for name in cfg.tasks}
    taken = {name: by_key.get((model, name, start)) for name, start in starts.items()}
    good = {name: score for name, score in taken.items() if score and not math.isnan(score.mean)}
    return Average(model, after, list(good.values()), [name for name in taken if name not in good])


def difference(one: Score | Average, other: Score | Average) -> Interval:
    """`one` minus `other`, with an interval by pairs of the same seed if they have the same seeds."""
    ours, theirs = one.seeds, other.seeds
    if not ours or ours.keys() != theirs.keys() or math.isnan(one.mean - other.mean):
        return Interval(one.mean - other.mean, math.nan, math.nan)
    return interval([ours[seed] - theirs[seed] for seed in ours])
