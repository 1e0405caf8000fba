"""The measured times of a step, kept in `speed.csv`: a line for each row of the study and round."""

import statistics
from pathlib import Path

from cadenza.studies.intervals import Interval, interval
from cadenza.studies.running import cells
from cadenza.studies.running.source import Source, digest

FILE = "speed.csv"


class Speeds:
    """Seconds of a step by row, a number for each round.

    A row that was measured later alternated with the baseline, too. Its seconds are its ratio to the baseline
    times the seconds that the baseline took the first time.
    """

    def __init__(self, rounds: dict[str, list[tuple[float, float]]], baseline: str) -> None:
        self.ratios = {name: [own / base for own, base in pairs] for name, pairs in rounds.items()}
        self.baseline = statistics.median(own for own, _ in rounds[baseline])

    def seconds(self, name: str) -> float:
        """Of a step of this row."""
        return statistics.median(self.ratios[name]) * self.baseline

    def ratio(self, name: str, other: str) -> Interval:
        """Of the seconds of a step of two rows, over rounds."""
        pairs = zip(self.ratios[name], self.ratios[other], strict=True)
        return interval([one / two for one, two in pairs])


def keys(rows: dict[str, Source], baseline: str, threads: str, rounds: int) -> dict[str, str]:
    """A hash for each row of what its speed depends on: its recipe and the baseline's, threads, rounds."""

    shared = rows[baseline].settings, threads, rounds
    return {name: digest(source.settings, *shared) for name, source in rows.items()}


def read(folder: Path, keys: dict[str, str], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Row -> seconds of its step and of the baseline's, by round; without rows that lack a round."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in cells.done(folder / FILE):
        if row["settings"] == keys.get(row["row"]):
            pair = float(row["seconds"]), float(row["baseline_seconds"])
            found.setdefault(row["row"], []).append(pair)
    return {name: pairs[-rounds:] for name, pairs in found.items() if len(pairs) >= rounds}


def keep(
    folder: Path, measured: dict[str, list[float]], names: list[str], baseline: str, keys: dict[str, str]
) -> None:
    """Append the rounds of the rows `names`."""
    for name in names:
        for turn, (own, base) in enumerate(zip(measured[name], measured[baseline], strict=True)):
            row = {"row": name, "round": turn, "seconds": own, "baseline_seconds": base}
            cells.append(folder / FILE, {**row, "settings": keys[name]})
