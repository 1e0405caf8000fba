"""The command that scores the checkpoints of runs that have no score yet."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from cadenza.recipe.checkpoints import NAME
from cadenza.studies.pretraining_pareto.points import Point
from cadenza.studies.pretraining_pareto.runs import Run

STUDY = "python -m cadenza.studies.glue yamls/glue.yaml"


def command(runs: Sequence[Run], points: Sequence[Point], each: int) -> str | None:
    """The command for `each` checkpoints of every run, evenly spread; None if all of them have scores."""
    scored = {(point.run, point.batch) for point in points if point.measure == "score"}
    todo = [
        str(path)
        for run in runs
        for path in spread(checkpoints(run), each)
        if (run.name, _batch(path)) not in scored
    ]
    return f"{STUDY} {shlex.quote('models=' + json.dumps(todo))}" if todo else None


def checkpoints(run: Run) -> list[Path]:
    """The checkpoints of a run that are there, by batch."""
    return sorted(
        (path for path in (run.folder / "checkpoints").glob("*.pt") if NAME.fullmatch(path.name)), key=_batch
    )


def spread(paths: Sequence[Path], count: int) -> list[Path]:
    """`count` of the paths, or all if there are fewer, evenly spread, with the last one."""
    count = min(count, len(paths))
    return [paths[round((number + 1) * len(paths) / count) - 1] for number in range(count)]


def _batch(path: Path) -> int:
    named = NAME.fullmatch(path.name)
    return int(named[2]) if named else 0
