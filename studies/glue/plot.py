"""The plot: a group of points for each task and start, a colour for each model, with 95 % t-intervals."""

import math
from pathlib import Path

from cadenza.studies import report
from cadenza.studies.glue.recipes import PRETRAINED
from cadenza.studies.glue.scores import Score
from cadenza.studies.intervals import interval

WIDTH = 0.6  # of a group; 1 is the distance between groups


def draw(path: Path, names: dict[str, str], found: list[Score]) -> None:
    """Write the plot of the scores of the models `names` to `path`; a score of one seed has no interval."""
    axes, groups = report.new_axes(), list(dict.fromkeys((score.task, score.start) for score in found))
    for number, (model, name) in enumerate(names.items()):
        own = [score for score in found if score.model == model]
        offset = WIDTH * (number - (len(names) - 1) / 2) / len(names)
        x = [groups.index((score.task, score.start)) + offset for score in own]
        y = [100 * score.mean for score in own]
        axes.errorbar(x, y, yerr=[_half(score) for score in own], fmt="o", capsize=3, label=name)
    labels = [task if start == PRETRAINED else f"{task}\nafter {start}" for task, start in groups]
    axes.set_xticks(range(len(groups)), labels, rotation=45, ha="right", fontsize="small")
    axes.set(ylabel="score, points")
    report.save(axes, path)


def _half(score: Score) -> float:
    if math.isnan(score.deviation):
        return 0.0
    found = interval(list(score.seeds.values()))
    return 100 * (found.high - found.mean)
