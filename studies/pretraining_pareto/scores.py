"""The scores of checkpoints, from the results of `python -m cadenza.studies.glue`."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cadenza.recipe.checkpoints import LATEST, NAME
from cadenza.studies.checks import StudyError
from cadenza.studies.pretraining_pareto.points import Point
from cadenza.studies.pretraining_pareto.runs import Run

RIGHT = "name the glue.json of python -m cadenza.studies.glue"


def read_all(files: Sequence[Path]) -> dict[str, float]:
    """Model -> score, of all files.

    Raises:
        StudyError: a file that isn't one of scores, or a model with two scores.
    """
    found: dict[str, float] = {}
    for file in files:
        for model, score in read(file).items():
            if found.setdefault(model, score) != score:
                raise StudyError(
                    f"--scores: {file} gives {model} {score}, and an earlier file {found[model]}"
                )
    return found


def read(file: Path) -> dict[str, float]:
    """Model -> score in `file`; a model without an average is left out.

    Raises:
        StudyError: it can't be read, or isn't a file of scores.
    """
    try:
        content = json.loads(file.expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyError(f"--scores: {file} can't be read ({error.strerror}); {RIGHT}") from error
    except ValueError as error:
        raise StudyError(f"--scores: {file} isn't JSON ({error}); {RIGHT}") from error
    try:
        scores = {str(model): _average(each) for model, each in content["models"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise StudyError(f"--scores: {file} has no averages of models ({error!r}); {RIGHT}") from error
    known = {model: score for model, score in scores.items() if score is not None}
    if not known:
        raise StudyError(f"--scores: {file} has no average; a task is missing for every model")
    return known


def _average(model: dict[str, Any]) -> float | None:
    """The average of the tasks, those after another task from it, as in the paper; None if one is missing."""
    average = model["average"]
    if average is not None and not math.isfinite(average):
        raise TypeError(f"{average} isn't finite")
    return average


def points_of(runs: Sequence[Run], scores: dict[str, float]) -> tuple[list[Point], list[str]]:
    """The points of the runs' checkpoints, and a line about each score that isn't simply one of them.

    Raises:
        StudyError: no score is of a checkpoint of these runs, or one is of a batch that a run doesn't have.
    """
    found, notes = [], []
    for model, score in scores.items():
        run, batch = _place(runs, model)
        if run is None:
            notes.append(f"{model} is no checkpoint of these runs; its score is left out.")
            continue
        if batch is None:
            batch, shown = _end(run, model), f"that of the last checkpoint of {run.name}"
            notes.append(f"The score of {model} is taken as {shown}, batch {batch}.")
        if batch not in run.spent:
            raise StudyError(f"--scores: {model} is of batch {batch}; {run.folder} has {run.last} batches")
        found.append(Point(run.name, "score", batch, run.spent[batch], score))
    if scores and not found:
        some = next(iter(scores))
        raise StudyError(f"--scores: no model in it is a checkpoint of these runs; one is {some}")
    return sorted(found, key=lambda point: (point.run, point.batch)), notes


def _place(runs: Sequence[Run], model: str) -> tuple[Run | None, int | None]:
    """The run of a model, and the batch of its checkpoint; no batch of a run's folder or its latest link."""
    path = Path(model).expanduser()
    named = NAME.fullmatch(path.name)
    if named or path.name == LATEST:
        folders = {(run.folder / "checkpoints").resolve(): run for run in runs}
        return folders.get(path.parent.resolve()), int(named[2]) if named else None
    return {run.folder.resolve(): run for run in runs}.get(path.resolve()), None


def _end(run: Run, model: str) -> int:
    if run.device is None:
        right = "name the checkpoint that was scored"
        raise StudyError(f"--scores: {model} is the latest checkpoint of a run that hasn't ended; {right}")
    return run.last
