"""The scores of checkpoints, from the results of `python -m cadenza.studies.glue`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cadenza.recipe.checkpoints import LATEST, NAME
from cadenza.studies.checks import StudyError
from cadenza.studies.pretraining_pareto.points import Point
from cadenza.studies.pretraining_pareto.runs import Run

PRETRAINED = "pretrained"  # where a task starts that comes after no other
RIGHT = "name the glue.json of python -m cadenza.studies.glue"


def read_all(files: Sequence[Path]) -> dict[str, float | None]:
    """Model -> average score of its tasks, of all files; None if a task has no score.

    Raises:
        StudyError: a file that isn't one of scores, other tasks in it, or a model with two scores.
    """
    found: dict[str, float | None] = {}
    contents = [_content(file) for file in files]
    for file, (tasks, scores) in zip(files, contents, strict=True):
        if tasks != contents[0][0]:
            raise StudyError(f"--scores: {file} and {files[0]} have other tasks, metrics or starts")
        for model, score in scores.items():
            if found.setdefault(model, score) != score:
                raise StudyError(
                    f"--scores: {file} gives {model} {score}, and an earlier file {found[model]}"
                )
    return found


def _content(file: Path) -> tuple[dict[str, Any], dict[str, float | None]]:
    """The tasks of a file, and its averages by model."""
    try:
        content = json.loads(file.expanduser().read_text(encoding="utf-8"))
        return content["tasks"], averages(content)
    except OSError as error:
        raise StudyError(f"--scores: {file} can't be read ({error.strerror}); {RIGHT}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StudyError(f"--scores: {file} isn't a file of scores ({error!r}); {RIGHT}") from error


def averages(content: dict[str, Any]) -> dict[str, float | None]:
    """The average of each model as in the paper: tasks that have `after` start from that task's model.

    An average in which a task has no score is None.
    """
    tasks = {name: task["after"] or PRETRAINED for name, task in content["tasks"].items()}
    found: dict[str, float | None] = {}
    for each in content["averages"]:
        found.setdefault(each["model"], None)
        if each["starts"] == tasks:  # it lacks none, and isn't that of all tasks from the pretrained model
            found[each["model"]] = each["mean"]
    return found


def points_of(runs: Sequence[Run], scores: Mapping[str, float | None]) -> tuple[list[Point], list[str]]:
    """The points of the runs' checkpoints, and a line about each score that isn't simply one of them.

    Raises:
        StudyError: no score is of a checkpoint of these runs, or one is of a batch that a run doesn't have.
    """
    found, notes = [], []
    for model, score in scores.items():
        run, batch = _place(runs, model)
        if run is None or score is None:
            why = "is no checkpoint of these runs" if run is None else "has no average: a task has no score"
            notes.append(f"{model} {why}; it is left out.")
            continue
        if batch is None:
            batch, shown = _end(run, model), f"that of the last checkpoint of {run.name}"
            notes.append(f"The score of {model} is taken as {shown}, batch {batch}.")
        if batch not in run.spent:
            raise StudyError(f"--scores: {model} is of batch {batch}; {run.folder} has {run.last} batches")
        found.append(Point(run.name, "score", batch, run.spent[batch], score))
    if scores and not found:
        raise StudyError(f"--scores: there is no score of these runs in it ({notes[0]})")
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
