"""Run a record, or a candidate, and print its time, its loss and what it changed.

    python benchmarks/speedrun/run.py [RECORD] [--seeds 1 2 3] [--track cpu] [key=value ...]

RECORD is a record's name or a folder with record.yaml and recipe.yaml; the last record by default. One seed
runs here with a progress bar; several run one after the other in processes of their own, and a finished one
isn't run again. `key=value` pairs change the recipe, to try things out. Nothing is written to the records:
runs lie in runs/speedrun.
"""

import argparse
import os
import statistics
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cell import RUNS, Cell, measured
from records import Record, before, found
from results import known_digests, shown_time
from tracks import TRACKS, Track

from cadenza.recipe.runs import kept_recipe
from cadenza.studies.checks import Parser, StudyError, guarded
from cadenza.studies.report import Row
from cadenza.studies.running import cells
from cadenza.studies.running.missing import rows_of
from cadenza.studies.running.side_by_side import Job
from cadenza.studies.running.slots import THREADS

FILE = "runs.csv"


def main(arguments: list[str]) -> int:
    """Run the command line and return the exit code."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="run.py", description=__doc__, formatter_class=raw)
    parser.add_argument("record", nargs="*", help="RECORD and key=value pairs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--track", choices=TRACKS, default="cpu")
    given = parser.parse_intermixed_args(arguments)
    return guarded(lambda: run(given.record, given.seeds, TRACKS[given.track]))


def run(words: list[str], seeds: list[int], track: Track) -> None:
    """Run the record that `words` names with each of `seeds`."""
    track.refuse_other_machine()
    pairs = [word for word in words if "=" in word]
    names = [word for word in words if "=" not in word]
    if len(names) > 1:
        raise StudyError(f"RECORD is {' '.join(names)}; it must be one name or folder")
    record = found(names[0] if names else None, track, pairs)
    record.recipe()  # its errors, before anything runs
    print(described(record), flush=True)
    rows = rows_of_seeds(record, seeds)
    print("\n".join(lines_of(rows, track)))


def described(record: Record) -> str:
    """What it is and what it changes, in lines."""
    lines = [f"{record.name}: {record.facts['title']}", f"changed: {record.facts['changed']}"]
    if last := before(record):
        then, now = (kept_recipe_of(each) for each in (last, record))
        lines += [f"  {line} ({record.name})" for line in kept_recipe.between(then, now)]
    return "\n".join(lines)


def kept_recipe_of(record: Record) -> dict[str, Any]:
    """Its recipe as nested mappings."""
    return asdict(record.recipe())


def rows_of_seeds(record: Record, seeds: list[int]) -> list[Row]:
    """A row for each seed; several are measured in processes of their own."""
    path = RUNS / record.track.name / FILE
    made = [Cell(record.folder, record.track.name, record.pairs, seed, len(seeds) == 1) for seed in seeds]
    if len(made) == 1:
        row = measured(made[0])
        cells.append(path, row)
        return [row]
    return measured_apart(path, made)


def measured_apart(path: Path, made: list[Cell]) -> list[Row]:
    """A row for each cell, one after the other, each in a fresh process; those in the file `path` are done."""
    threads = TRACKS[made[0].track].threads
    if threads is not None:
        os.environ[THREADS] = str(threads)
    wanted = {key_of(each): each for each in made}

    def job(each: Cell, _: object) -> Job:
        return Job(f"{each.record.name} seed {each.seed}", measured, (each,), log=each.log)

    found = rows_of(path, wanted, lambda row: (row["record"], int(row["seed"]), row["settings"]), job, 1)
    return [*found.values()]


def key_of(cell: Cell) -> tuple[str, int, str]:
    """What a row is found by."""
    return cell.record.name, cell.seed, cell.settings


def lines_of(rows: list[Row], track: Track) -> list[str]:
    """The results for the screen."""
    lines = [
        f"seed {row['seed']}: loss {float(row['loss']):.4f}, {float(row['seconds']):.1f} s of training (CPU "
        f"{float(row['cpu_seconds']):.1f} s), {int(row['batches']):,} batches, "
        f"{int(row['tokens']) / float(row['seconds']):,.0f} tokens/s"
        for row in rows
    ]
    loss = statistics.fmean(float(row["loss"]) for row in rows)
    if track.target is None:
        lines.append(f"mean loss {loss:.4f}; track {track.name} has no target yet")
    else:
        verdict = "reached" if loss <= track.target else "missed"
        lines.append(f"mean loss {loss:.4f}; the target {track.target} is {verdict}")
    digests = {row["digest"] for row in rows}
    if known_digests(track) and not digests <= known_digests(track):
        lines.append(
            f"digest {', '.join(digests)}: not comparable with the table ({', '.join(known_digests(track))}); "
            "text, vocabulary or evaluation differ, so run the base record here too"
        )
    else:
        lines.append(f"digest {', '.join(digests)}")
    return [*lines, *shown_time(track)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
