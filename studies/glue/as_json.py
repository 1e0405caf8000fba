"""The results as JSON: scores from 0 to 1, null for what there isn't."""

from collections.abc import Iterator
from typing import Any

from cadenza.studies import report
from cadenza.studies.glue.hours import Hours
from cadenza.studies.glue.lines import by_kind, lines
from cadenza.studies.glue.scores import Average, Score, difference
from cadenza.studies.glue.settings import Glue


def text(cfg: Glue, found: list[Score], means: list[Average], spent: dict[str, Hours]) -> str:
    """The content of glue.json."""
    content = {
        "tasks": {name: _task(cfg, name) for name in cfg.tasks},
        "scores": [{**vars(each), "mean": each.mean, "deviation": each.deviation} for each in found],
        "averages": [_average(mean) for mean in means],
        "differences": list(_differences(cfg, found, means)),
        "hours": {model: vars(each) for model, each in spent.items()},
    }
    return report.as_json(content)


def _task(cfg: Glue, name: str) -> dict[str, Any]:
    task = cfg.task(name)
    return {"metrics": task.metrics, "after": task.after}


def _average(mean: Average) -> dict[str, Any]:
    starts = {score.task: score.start for score in mean.scores}
    return {"model": mean.model, "starts": starts, "mean": mean.mean, "without_score": mean.lacking}


def _differences(cfg: Glue, found: list[Score], means: list[Average]) -> Iterator[dict[str, Any]]:
    """Of each other model from the first one."""
    first, *others = cfg.models
    of_tasks = [({"task": task, "start": start}, each) for (task, start), each in lines(cfg, found).items()]
    of_means = [({"average": True, "after": after}, each) for after, each in by_kind(means).items()]
    for what, by_model in (*of_tasks, *of_means):
        for model in others:
            if model in by_model and first in by_model:
                change = difference(by_model[model], by_model[first])
                yield {"model": model, "minus": first, **what, **vars(change)}
