"""Cells in processes of their own, one after the other."""

import os
from pathlib import Path

from cell import Cell, measured
from tracks import TRACKS

from cadenza.studies.report import Row
from cadenza.studies.running.missing import rows_of
from cadenza.studies.running.side_by_side import Job
from cadenza.studies.running.slots import THREADS

Key = tuple[str, int, str]


def measured_apart(path: Path, cells: list[Cell]) -> list[Row]:
    """A row for each of `cells`, in their order; those that have one in the file `path` aren't run again."""
    threads = TRACKS[cells[0].track].threads
    if threads is not None:
        os.environ[THREADS] = str(threads)  # of the processes, whatever it was
    wanted = {(each.record.name, each.seed, each.settings): each for each in cells}
    return [*rows_of(path, wanted, _key, _job, processes=1).values()]


def _key(row: Row) -> Key:
    return row["record"], int(row["seed"]), row["settings"]


def _job(cell: Cell, _: object) -> Job:
    return Job(f"{cell.record.name} seed {cell.seed}", measured, (cell,), log=cell.log)
