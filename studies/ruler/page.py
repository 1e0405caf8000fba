"""What the study writes: ruler.md, which it prints as well, and the plots; ruler.csv has the cells."""

import math
from pathlib import Path

from cadenza.studies import report
from cadenza.studies.intervals import Interval
from cadenza.studies.ruler import plot
from cadenza.studies.ruler.scores import Scores
from cadenza.studies.ruler.settings import Ruler
from cadenza.studies.ruler.study import Found
from cadenza.studies.ruler.tasks.table import RULER

OWN = "The prompts are made from local text in words of their own: don't compare with published RULER scores."
SPREAD = (
    "± is half of the 95 % t-interval over a model's checkpoints; a model with one checkpoint has none. "
    "It doesn't cover the choice of examples."
)


def write(cfg: Ruler, found: Found) -> None:
    """Write and print the results."""
    scores, folder = Scores(found.rows), Path(cfg.out)
    page = text(cfg, scores, found)
    (folder / "ruler.md").write_text(page + "\n", encoding="utf-8")
    plot.draw(folder, scores)
    print(f"{page}\n\nwritten: {folder / 'ruler'}.csv, .md, .png, _tasks.png", flush=True)


def text(cfg: Ruler, scores: Scores, found: Found) -> str:
    """The page."""
    number = cfg.examples * len(cfg.seeds)
    head = f"Points (100 = perfect), {number} examples of each task and length, {cfg.dtype}. {OWN} {SPREAD}"
    parts = [head, _summary(scores), *_list([*_asked(scores), *_missing(found.left_out), *found.notes])]
    for model in scores.models:
        parts.append(f"## {model}\n\n{_tasks(scores, model)}")
    return "\n\n".join(parts)


def _summary(scores: Scores) -> str:
    """A row for each length, a column for each model."""
    body = [
        [str(length), str(len(scores.shared(length))), *(_cell(scores.at(m, length)) for m in scores.models)]
        for length in scores.lengths
    ]
    body.append(["**all**", "", *(_cell(scores.overall(model)) for model in scores.models)])
    return report.table(["tokens", "tasks", *_names(scores)], body)


def _names(scores: Scores) -> list[str]:
    """Of a model with several checkpoints their number is said."""
    counts = {model: len(checkpoints) for model, checkpoints in scores.models.items()}
    return [f"{model} ({count} checkpoints)" if count > 1 else model for model, count in counts.items()]


def _asked(scores: Scores) -> list[str]:
    """Which tasks are in the means, where they aren't RULER's 13."""
    lines = []
    for length in scores.lengths:
        tasks = scores.shared(length)
        if tasks != list(RULER):
            lines.append(f"mean at {length}: {', '.join(tasks) or 'no task was asked of all models'}")
    return lines


def _missing(left_out: dict[str, str]) -> list[str]:
    return [f"left out: {what} ({why})" for what, why in left_out.items()]


def _list(lines: list[str]) -> list[str]:
    return ["\n".join(f"- {line}" for line in lines)] if lines else []


def _tasks(scores: Scores, model: str) -> str:
    body = [
        [task, *(_points(scores.of_task(model, task, length)) for length in scores.lengths)]
        for task in scores.tasks
    ]
    return report.table(["task", *map(str, scores.lengths)], body)


def _cell(found: Interval | None) -> str:
    if found is None:
        return ""
    return _points(found.mean) + ("" if math.isnan(found.low) else f" ± {found.mean - found.low:.1f}")


def _points(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
