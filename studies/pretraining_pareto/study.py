"""The study itself: read the runs, compare them, write what came out."""

from argparse import Namespace
from collections.abc import Sequence

from cadenza.studies.checks import StudyError, plots
from cadenza.studies.pretraining_pareto import groups, notes, output, runs, scores, targets
from cadenza.studies.pretraining_pareto.comparing import refuse_other_evaluation
from cadenza.studies.pretraining_pareto.points import Point
from cadenza.studies.pretraining_pareto.unscored import command


def study(options: Namespace) -> None:
    """Compare the runs, write the results to `options.out`, and print them.

    Raises:
        StudyError: runs, groups, scores or targets that can't be compared.
    """
    plots()
    found = runs.read_all([*options.runs, *(folder for each in options.group for folder in each.folders)])
    if not found:
        raise StudyError("no run is named; name the folders of runs, such as runs/NAME")
    lines = groups.lines(found, options.group)
    points, said = _points(found, options)
    rows = targets.rows(lines, points, _targets(options.target, points), options.price)
    said = [*notes.of_runs(found, options.price is not None), *said]
    results = output.Results(lines, points, rows, said, options.price is not None, options.published)
    output.write(options.out, results)
    if more := command(found, points, options.checkpoints):
        print(f"\nto score the checkpoints, and then name the result by --scores:\n{more}")


def _points(found: list[runs.Run], options: Namespace) -> tuple[list[Point], list[str]]:
    """All points, those of a measure together, and the notes on scores."""
    scored, said = scores.points_of(found, scores.read_all(options.scores))
    if options.without_loss:
        if not scored:
            raise StudyError("--without-loss: there are no scores to compare; name them by --scores")
        return scored, said
    for run in found:
        if not run.losses:
            raise StudyError(f"{run.folder}: there is no evaluation in it; set train.eval_interval")
    refuse_other_evaluation(found)
    return [*(point for run in found for point in run.points), *scored], said


def _targets(asked: Sequence[targets.Target], points: list[Point]) -> list[targets.Target]:
    """The targets, each with its measure."""
    there = list(dict.fromkeys(point.measure for point in points))
    for measure, value in asked:
        if not measure and len(there) > 1:
            right = f"write loss={value:g} or score={value:g}"
            raise StudyError(f"--target: {value:g} may be a loss or a score; {right}")
        if measure and measure not in there:
            right = "name scores by --scores" if measure == "score" else "leave out --without-loss"
            raise StudyError(f"--target {measure}={value:g}: there is no {measure} here; {right}")
    return [targets.Target(measure or there[0], value) for measure, value in asked]
