"""Run a record, or a candidate, and print its time, its loss and what it changes.

    python benchmarks/speedrun/run.py [RECORD] [--seeds 1 2 3] [--track cpu] [key=value ...]

RECORD is a name in records/ or tried/, or a folder with record.yaml and recipe.yaml; by default the last
record. One seed runs here, with a progress bar. Several run one after the other in processes of their own,
and those that have run on this commit aren't run again. Pairs change the recipe, to try things out. Nothing
is written to the records: runs lie in runs/speedrun.
"""

import argparse
import sys

from cell import RUNS, Cell, measured
from records import Record, found
from running import measured_apart
from shown import of_digest, of_loss, of_record, of_run, of_table
from tracks import TRACKS, Track

from cadenza.studies.checks import Parser, StudyError, guarded
from cadenza.studies.report import Row
from cadenza.studies.running import cells


def main(arguments: list[str]) -> int:
    """Run the command line and return the exit code."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="run.py", description=__doc__, formatter_class=raw)
    parser.add_argument("words", metavar="RECORD, key=value", nargs="*")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--track", choices=TRACKS, default="cpu")
    given = parser.parse_intermixed_args(arguments)
    return guarded(lambda: run(given.words, given.seeds, TRACKS[given.track]))


def run(words: list[str], seeds: list[int], track: Track) -> None:
    """Run the record that `words` name, with the pairs among them, with each of `seeds`."""
    track.refuse_other_machine()
    names = [word for word in words if "=" not in word]
    if len(names) > 1:
        raise StudyError(f"RECORD is {' '.join(names)}; it must be one name or folder")
    record = found(names[0] if names else None, track, [word for word in words if "=" in word])
    print("\n".join(of_record(record)), flush=True)
    rows = rows_of_seeds(record, seeds)
    lines = [*map(of_run, rows), of_loss(rows, track), *of_digest(rows, track), *of_table(track)]
    print("\n".join(lines))


def rows_of_seeds(record: Record, seeds: list[int]) -> list[Row]:
    """A row for each seed, which is also kept in runs.csv."""
    path = RUNS / record.track.name / "runs.csv"
    made = [Cell(record.folder, record.track.name, record.pairs, seed, len(seeds) == 1) for seed in seeds]
    if len(made) > 1:
        return measured_apart(path, made)
    row = measured(made[0])
    cells.append(path, row)
    return [row]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
