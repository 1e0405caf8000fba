"""The cells of a study that have no row yet: run side by side, and written down as they end."""

from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import TypeVar

from cadenza.studies.report import Row
from cadenza.studies.running import cells
from cadenza.studies.running.side_by_side import Job, run_jobs, slots

Cell = TypeVar("Cell")
Key = TypeVar("Key", bound=Hashable)


def rows_of(
    path: Path,
    wanted: Mapping[Key, Cell],
    key: Callable[[Row], Key],
    job: Callable[[Cell, set[Key]], Job],
    processes: int | None,
) -> dict[Key, Row]:
    """The row of each cell, in the order of `wanted`: from the file `path`, or after it ran.

    Args:
        key: that of a cell, from its row.
        job: what makes the row of a cell; it is told the keys of all cells that are to be run.
        processes: see `slots`.
    """
    done = {key(row) for row in cells.done(path)}
    todo = {each: cell for each, cell in wanted.items() if each not in done}
    if len(todo) < len(wanted):
        print(f"{len(wanted) - len(todo)} of {len(wanted)} cells are done")
    for _, row in run_jobs([job(cell, set(todo)) for cell in todo.values()], slots(processes)):
        cells.append(path, row)
    found = {key(row): row for row in cells.done(path)}
    return {each: found[each] for each in wanted}
