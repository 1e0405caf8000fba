"""The results in lines, for the screen."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import results
from records import Record, before, numbered
from tracks import Track
from verdict import SEEDS, Verdict

from cadenza.recipe.runs import kept_recipe
from cadenza.studies.intervals import Interval
from cadenza.studies.report import Row


def of_record(record: Record) -> list[str]:
    """What it is, and what it changes."""
    lines = [f"{record.name}: {record.facts['title']}", f"changed: {record.facts['changed']}"]
    last = before(record)
    then = asdict((last or record).recipe())
    changes = kept_recipe.between(then, asdict(record.recipe()))
    return [*lines, *(f"  {line}" for line in changes)]


def of_run(row: Row) -> str:
    """A run's loss and its time."""
    seconds = float(row["seconds"])
    return (
        f"{row['record']}, seed {row['seed']}: loss {float(row['loss']):.4f}, {seconds:.1f} s of training "
        f"(CPU {float(row['cpu_seconds']):.1f} s), {int(row['batches']):,} batches, "
        f"{int(row['tokens']) / seconds:,.0f} tokens/s"
    )


def of_loss(rows: Sequence[Row], track: Track) -> str:
    """The mean loss against the target."""
    loss = statistics.fmean(float(row["loss"]) for row in rows)
    if track.target is None:
        return f"mean loss {loss:.4f}; track {track.name} has no target yet"
    said = "reached" if loss <= track.target else "missed"
    few = f"; a record takes the mean of {SEEDS} seeds" if len(rows) < SEEDS else ""
    return f"mean loss {loss:.4f}; the target {track.target:g} is {said}{few}"


def of_digest(rows: Sequence[Row], track: Track) -> list[str]:
    """The digest, and whether it is the table's."""
    here, known = sorted({row["digest"] for row in rows}), sorted(results.known_digests(track))
    line = f"digest of text, vocabulary and evaluation: {', '.join(here)}"
    if not known or set(here) <= set(known):
        return [line]
    return [line, f"not comparable with the table ({', '.join(known)}): run the base record here too"]


def of_table(track: Track) -> list[str]:
    """The records as the table has them."""
    lines = [f"the table of track {track.name}:"]
    for folder in numbered(track.records):
        kept = results.read(folder)
        lines.append(f"  {folder.name}: {_figures(kept) if kept else 'NOT MEASURED'}")
    return lines


def of_verdict(verdict: Verdict, new: Record, old: Record | None) -> list[str]:
    """The verdict and its reasons."""
    lines = [f"{new.name}: mean loss {verdict.loss:.4f}, target {new.track.target:g}"]
    if old is not None and verdict.ratio and verdict.cpu_ratio:
        lines.append(f"seconds, of those of {old.name}: {of_interval(verdict.ratio)}")
        lines.append(f"CPU seconds, of those of {old.name}: {of_interval(verdict.cpu_ratio)}")
    return [*lines, f"verdict: {verdict.name}"]


def of_interval(found: Interval | Sequence[float], style: str = ".3f") -> str:
    """A mean with its interval."""
    mean, low, high = found if isinstance(found, Sequence) else (found.mean, found.low, found.high)
    return f"{mean:{style}} ({low:{style}} to {high:{style}})"


def _figures(kept: dict[str, Any]) -> str:
    ratio = f", {of_interval(kept['ratio'])} of the time of {kept['against']}" if kept["ratio"] else ""
    return f"{of_interval(kept['seconds'], '.1f')} s, loss {kept['loss']:.4f}{ratio}"
