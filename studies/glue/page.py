"""What the study writes: glue.md, which it prints as well, glue.json and glue.png; glue.csv has the cells."""

import math
from pathlib import Path

from cadenza.studies import report
from cadenza.studies.glue import as_json, plot
from cadenza.studies.glue.hours import Hours, hours
from cadenza.studies.glue.lines import by_kind, lines
from cadenza.studies.glue.recipes import PRETRAINED, Cell, short
from cadenza.studies.glue.scores import Average, Score, averages, difference, scores
from cadenza.studies.glue.settings import Glue
from cadenza.studies.intervals import Interval

HEAD = (
    "Points (100 = perfect): mean ± standard deviation over seeds (number of seeds). A run's score is the "
    "mean of its task's metrics at its last evaluation."
)
RULE = (
    "Learning rates: of those tried, the one with the highest mean over seeds counts; of equals the smaller."
)


def write(cfg: Glue, rows: dict[Cell, report.Row]) -> None:
    """Write and print the results."""
    found = scores(cfg, rows)
    means, spent = averages(cfg, found), hours(rows)
    page, folder = _page(cfg, found, means, spent), Path(cfg.out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "glue.md").write_text(page + "\n")
    (folder / "glue.json").write_text(as_json.text(cfg, found, means, spent))
    plot.draw(folder / "glue.png", names_of(cfg), found)
    print(f"{page}\n\nwritten: {folder / 'glue'}.csv, .md, .json, .png", flush=True)


def names_of(cfg: Glue) -> dict[str, str]:
    """How each model is called: by the last part of its name, or whole if others have the same."""
    ends = [short(model) for model in cfg.models]
    return {model: model if ends.count(short(model)) > 1 else short(model) for model in cfg.models}


def _page(cfg: Glue, found: list[Score], means: list[Average], spent: dict[str, Hours]) -> str:
    swept = any(score.rates > 1 for score in found)
    parts = [HEAD, _scores_table(cfg, found, means), *_about(means), *([RULE] if swept else [])]
    if len(cfg.models) > 1:
        parts.append(_differences_table(cfg, found, means))
    return "\n\n".join([*parts, _hours_table(cfg, spent)])


def _scores_table(cfg: Glue, found: list[Score], means: list[Average]) -> str:
    names = names_of(cfg)
    body = [
        [task, ", ".join(cfg.task(task).metrics), start, *(_cell(by_model.get(model)) for model in names)]
        for (task, start), by_model in lines(cfg, found).items()
    ]
    for after, by_model in by_kind(means).items():
        body.append(["**average**", "", _start(cfg, after), *(_points(by_model[m].mean) for m in names)])
    return report.table(["task", "metrics", "start", *names.values()], body)


def _start(cfg: Glue, after: bool) -> str:
    """What the tasks of an average start from."""
    moved = [f"{name} after {cfg.task(name).after}" for name in cfg.tasks if cfg.task(name).after]
    return f"{', '.join(moved)}; the others {PRETRAINED}" if after else f"all {PRETRAINED}"


def _about(means: list[Average]) -> list[str]:
    """Which tasks are in the averages, and which have none."""
    names = [score.task for score in means[0].scores] + means[0].lacking
    lines = [f"average: the mean of the means of {len(names)} tasks: {', '.join(sorted(names))}."]
    for mean in (mean for mean in means if mean.lacking):
        lines.append(f"No average of {short(mean.model)}: {', '.join(mean.lacking)} has no score.")
    return list(dict.fromkeys(lines))


def _differences_table(cfg: Glue, found: list[Score], means: list[Average]) -> str:
    (first, name), *others = names_of(cfg).items()
    body = []
    for (task, start), by_model in lines(cfg, found).items():
        body.append([task, start, *(_change(by_model.get(m), by_model.get(first)) for m, _ in others)])
    for after, by_model in by_kind(means).items():
        cells = (_change(by_model[model], by_model[first]) for model, _ in others)
        body.append(["**average**", _start(cfg, after), *cells])
    note = (
        "Differences in points, with a 95 % t-interval of the differences at equal seeds. Where it holds 0, "
        "or there is one seed, or the tasks of an average have different seeds, the sign can't be told."
    )
    head = ["task", "start", *(f"{other} - {name}" for _, other in others)]
    return f"{note}\n\n{report.table(head, body)}"


def _change(one: Score | Average | None, other: Score | Average | None) -> str:
    found = difference(one, other) if one and other else Interval(math.nan, math.nan, math.nan)
    if math.isnan(found.mean):
        return ""
    signed = f"{100 * found.mean:+.2f}"
    if math.isnan(found.low):
        return f"{signed}: can't tell"
    ends = f"{signed} ({100 * found.low:+.2f} to {100 * found.high:+.2f})"
    return ends if found.tells else f"{ends}: can't tell"


def _cell(score: Score | None) -> str:
    if score is None:
        return ""
    spread = "" if math.isnan(score.deviation) else f" ± {100 * score.deviation:.2f}"
    rate = f", {score.learning_rate:g} is the best of {score.rates}" if score.rates > 1 else ""
    return f"{_points(score.mean)}{spread} ({len(score.seeds)}){rate}"


def _points(score: float) -> str:
    return "none" if math.isnan(score) else f"{100 * score:.2f}"


def _hours_table(cfg: Glue, spent: dict[str, Hours]) -> str:
    rows = [(names_of(cfg).get(model, model), each) for model, each in spent.items()]
    body = [[n, str(h.runs), f"{h.training:.3f}", f"{h.processes:.3f}", f"{h.wall:.3f}"] for n, h in rows]
    return report.table(["hours", "runs", "training", "all of the runs", "wall clock"], body)
