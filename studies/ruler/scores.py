"""Scores over tasks, lengths and checkpoints, in points: 100 is perfect."""

import statistics
from collections.abc import Iterable, Mapping
from functools import cached_property

from cadenza.studies.intervals import Interval, interval
from cadenza.studies.report import Row
from cadenza.studies.ruler.cells import Cell


class Scores:
    """What the rows of a study say.

    A mean over tasks at a length has the tasks that every checkpoint of every model was asked at this length,
    and the mean of all is that of the lengths' means. The spread is that over a model's checkpoints.
    """

    def __init__(self, rows: Mapping[Cell, Row]) -> None:
        found: dict[tuple[str, str, str, int], list[float]] = {}
        for cell, row in rows.items():
            key = (cell.model, cell.checkpoint, cell.task, cell.length)
            found.setdefault(key, []).append(100 * float(row["score"]))
        self.points = {key: statistics.fmean(scores) for key, scores in found.items()}  # over seeds

    @cached_property
    def models(self) -> dict[str, list[str]]:
        """The checkpoints of each model."""
        found: dict[str, dict[str, None]] = {}
        for model, checkpoint, *_ in self.points:
            found.setdefault(model, {})[checkpoint] = None
        return {model: list(checkpoints) for model, checkpoints in found.items()}

    @cached_property
    def lengths(self) -> list[int]:
        """The lengths at which there is a score, short ones first."""
        return sorted({length for *_, length in self.points})

    @cached_property
    def tasks(self) -> list[str]:
        """The tasks that have a score."""
        return list(dict.fromkeys(task for _, _, task, _ in self.points))

    def shared(self, length: int) -> list[str]:
        """The tasks of the mean at `length`."""
        every = [(model, one) for model, ones in self.models.items() for one in ones]
        return [t for t in self.tasks if all((*each, t, length) in self.points for each in every)]

    def of_task(self, model: str, task: str, length: int) -> float | None:
        """The mean over the checkpoints of a model; None: it wasn't asked."""
        keys = [(model, checkpoint, task, length) for checkpoint in self.models[model]]
        found = [self.points[key] for key in keys if key in self.points]
        return statistics.fmean(found) if found else None

    def at(self, model: str, length: int) -> Interval | None:
        """The mean over tasks at a length; None: no task was asked of all models."""
        return self._over_checkpoints(model, [length])

    def overall(self, model: str) -> Interval | None:
        """The mean over tasks and lengths."""
        return self._over_checkpoints(model, self.lengths)

    def _over_checkpoints(self, model: str, lengths: Iterable[int]) -> Interval | None:
        asked = {length: tasks for length in lengths if (tasks := self.shared(length))}
        if not asked:
            return None
        return interval(
            [
                statistics.fmean(
                    statistics.fmean(self.points[model, checkpoint, task, length] for task in tasks)
                    for length, tasks in asked.items()
                )
                for checkpoint in self.models[model]
            ]
        )
