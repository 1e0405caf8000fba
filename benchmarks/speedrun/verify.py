"""Verify a candidate: its runs and the last record's in alternation, and whether it is a record.

    python benchmarks/speedrun/verify.py NEW [--against OLD] [--seeds 1 2 3] [--track cpu]

NEW is a name in records/ or tried/, or a folder. OLD is by default the record before it; the first record has
none. Each run has a process of its own, one after the other; a seed's two runs are neighbours, and which of
them comes first alternates. A verification that was stopped goes on where it was, on the same commit. The
results are written to NEW's folder; those against an OLD that is named, to NEW/against_OLD.json alone.
"""

import argparse
import sys

import results
from cell import RUNS, Cell
from records import Record, before, found
from running import measured_apart
from shown import of_digest, of_run, of_verdict
from tracks import TRACKS
from verdict import SEEDS, judged

from cadenza.studies.checks import Parser, StudyError, guarded, intervals


def main(arguments: list[str]) -> int:
    """Run the command line and return the exit code."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="verify.py", description=__doc__, formatter_class=raw)
    parser.add_argument("new", metavar="NEW")
    parser.add_argument("--against", metavar="OLD", help="a record, in place of the one before NEW")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--track", choices=TRACKS, default="cpu")
    given = parser.parse_args(arguments)
    return guarded(lambda: verify(given.new, given.against, given.seeds, given.track))


def verify(name: str, against: str | None, seeds: list[int], track: str) -> None:
    """Measure what isn't there yet, print the verdict and write the results."""
    intervals()
    TRACKS[track].refuse_other_machine()
    new = found(name, TRACKS[track])
    old = before(new) if against is None else found(against, TRACKS[track])
    refuse(new, old, seeds)
    made = alternating(new, old, seeds)
    pair = f"{new.name}-against-{old.name if old else 'none'}"
    rows = measured_apart(RUNS / track / f"{pair}.csv", made)
    by_record = {each: [row for row in rows if row["record"] == each.name] for each in (new, old) if each}
    ours, theirs = ([*sorted(rows, key=_seed)] for rows in (by_record[new], by_record.get(old, [])))
    verdict = judged(ours, theirs, _target(new))
    print("\n".join([*map(of_run, rows), *of_digest(ours, new.track), *of_verdict(verdict, new, old)]))
    found_now = results.summary(new, old, ours, theirs, verdict)
    logs = [cell.log for cell in made if cell.record == new]
    results.write(new, found_now, ours, logs) if against is None else results.write_apart(new, found_now)


def alternating(new: Record, old: Record | None, seeds: list[int]) -> list[Cell]:
    """The runs in their order."""
    pair = [record for record in (old, new) if record is not None]
    return [
        Cell(record.folder, record.track.name, (), seed)
        for turn, seed in enumerate(seeds)
        for record in (pair if turn % 2 == 0 else pair[::-1])
    ]


def refuse(new: Record, old: Record | None, seeds: list[int]) -> None:
    """Raise `StudyError` for what can't be verified, before anything runs."""
    _target(new)
    if old is not None and old.name == new.name:
        raise StudyError(f"{new.name} can't be verified against itself")
    if len(set(seeds)) < max(len(seeds), SEEDS):
        raise StudyError(f"--seeds is {seeds}; it must name {SEEDS} different ones at least")
    for record in (new, old):
        if record is not None:
            record.recipe()


def _target(record: Record) -> float:
    if record.track.target is None:
        raise StudyError(f"track {record.track.name} has no target yet: set it in tracks.py")
    return record.track.target


def _seed(row: dict) -> int:
    return int(row["seed"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
