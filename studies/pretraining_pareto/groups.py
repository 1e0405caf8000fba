"""Which runs are seeds of one recipe: `NAME=RUN,RUN`, as the command line names them."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cadenza.recipe.runs import kept_recipe
from cadenza.studies.checks import StudyError
from cadenza.studies.pretraining_pareto.runs import Run
from cadenza.studies.pretraining_pareto.targets import Line


class Group(NamedTuple):
    """A name, and the folders of its runs."""

    name: str
    folders: list[Path]


def group(text: str) -> Group:
    """A `type` of argparse: `base=runs/base-17,runs/base-18`."""
    name, equals, folders = text.partition("=")
    paths = [Path(each) for each in folders.split(",") if each]
    if not name or not equals or not paths:
        raise argparse.ArgumentTypeError(f"is {text!r}; it must be like base=runs/base-17,runs/base-18")
    return Group(name, paths)


def lines(runs: Sequence[Run], groups: Sequence[Group]) -> list[Line]:
    """The groups, and the runs that are in none, in the order of their first run.

    Raises:
        StudyError: a run in two groups, a name twice, or runs that aren't seeds of one recipe.
    """
    by_folder = {run.folder.resolve(): run for run in runs}
    grouped = [Line(name, _members(by_folder, folders)) for name, folders in groups]
    for line in grouped:
        _refuse_other_recipe(line)
    inside = [run.name for line in grouped for run in line.runs]
    if twice := next((name for name in inside if inside.count(name) > 1), None):
        raise StudyError(f"--group: {twice} is named twice; a run is in one group, once")
    found = [*grouped, *(Line(run.name, [run]) for run in runs if run.name not in inside)]
    names = [line.name for line in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise StudyError(f"--group: {twice!r} names two lines; give the group another name")
    return sorted(found, key=lambda line: min(runs.index(run) for run in line.runs))


def _members(by_folder: dict[Path, Run], folders: list[Path]) -> list[Run]:
    return [by_folder[folder.expanduser().resolve()] for folder in folders]


def _refuse_other_recipe(line: Line) -> None:
    first = line.runs[0]
    for run in line.runs[1:]:
        found = kept_recipe.between(first.recipe, run.recipe)
        if other := [each for each in found if not each.startswith("seed: ")]:
            pair = f"{run.folder} is no other seed of {first.folder} ({other[0]})"
            raise StudyError(f"--group {line.name}: {pair}; group runs of one recipe")
