"""The lines of the tables: scores by task and start, averages by kind."""

from cadenza.studies.glue.recipes import PRETRAINED
from cadenza.studies.glue.scores import Average, Score
from cadenza.studies.glue.settings import Glue


def lines(cfg: Glue, found: list[Score]) -> dict[tuple[str, str], dict[str, Score]]:
    """The scores by task and start, in the order of the settings, and by model."""
    lines: dict[tuple[str, str], dict[str, Score]] = {}
    order = list(cfg.tasks)
    for score in sorted(found, key=lambda s: (order.index(s.task), s.start != PRETRAINED)):
        lines.setdefault((score.task, score.start), {})[score.model] = score
    return lines


def by_kind(means: list[Average]) -> dict[bool, dict[str, Average]]:
    """The averages by whether tasks start from others, and by model."""
    kinds = dict.fromkeys(mean.after for mean in means)
    return {after: {mean.model: mean for mean in means if mean.after is after} for after in kinds}
