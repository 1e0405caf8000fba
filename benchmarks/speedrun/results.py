"""The results of a verification, in the folder of its record.

- results.json: verdict, means with intervals, machine, and each run of both records;
- curve.csv: the evaluations of its runs;
- log.txt: what its runs printed;
- resolved.yaml: its recipe with all defaults, as it was then.
"""

import json
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch
from records import Record, numbered
from tracks import Track
from verdict import Verdict

from cadenza.recipe.loading.load import resolved
from cadenza.studies.intervals import interval
from cadenza.studies.report import Row, as_csv, as_json

FILE = "results.json"
FLOATS = ("seconds", "cpu_seconds", "composer_seconds", "loss")
WHOLE = ("seed", "batches", "tokens", "parameters")


def summary(
    new: Record, old: Record | None, ours: Sequence[Row], theirs: Sequence[Row], verdict: Verdict
) -> dict[str, Any]:
    """The content of results.json."""
    runs, others = ([_plain(row) for row in rows] for rows in (ours, theirs))
    rates = [run["tokens"] / run["seconds"] for run in runs]
    return {
        **{"record": new.name, "against": old.name if old else None, "verdict": verdict.name},
        **{"target": new.track.target, "loss": verdict.loss},
        **{"seconds": _interval(runs, "seconds"), "cpu_seconds": _interval(runs, "cpu_seconds")},
        "ratio": astuple(verdict.ratio) if verdict.ratio else None,
        "cpu_ratio": astuple(verdict.cpu_ratio) if verdict.cpu_ratio else None,
        **{"tokens_per_second": sum(rates) / len(rates), "digest": ours[0]["digest"]},
        **{"machine": json.loads(ours[-1]["machine"]), "runs": runs, "runs_against": others},
    }


def write(record: Record, found: dict[str, Any], rows: Sequence[Row], logs: Sequence[Path]) -> None:
    """Write all files."""
    (record.folder / FILE).write_text(as_json(found))
    curves = [{"seed": row["seed"], **point} for row in rows for point in json.loads(row["curve"])]
    as_csv(record.folder / "curve.csv", curves)
    texts = [f"{log.parent.name}\n{log.read_text()}" for log in logs if log.is_file()]
    packages = f"{Path(torch.__file__).parents[1]}/"  # warnings name files of this machine
    (record.folder / "log.txt").write_text("\n".join(texts).replace(packages, ""))
    (record.folder / "resolved.yaml").write_text(resolved(record.recipe()))
    print(f"written: {record.folder}: {FILE}, curve.csv, log.txt, resolved.yaml")


def write_apart(record: Record, found: dict[str, Any]) -> None:
    """Write the results against another record than the one before."""
    path = record.folder / f"against_{found['against']}.json"
    path.write_text(as_json(found))
    print(f"written: {path}")


def read(folder: Path) -> dict[str, Any] | None:
    """The results of the record in `folder`; None if it wasn't verified yet."""
    path = folder / FILE
    return json.loads(path.read_text()) if path.is_file() else None


def read_any(folder: Path) -> dict[str, Any] | None:
    """`read`, or else the results against a record that was named."""
    others = sorted(folder.glob("against_*.json"))
    return read(folder) or (json.loads(others[0].read_text()) if others else None)


def known_digests(track: Track) -> set[str]:
    """The digests of the track's verified records."""
    kept = [read(folder) for folder in numbered(track.records)]
    return {each["digest"] for each in kept if each}


def _plain(row: Row) -> dict[str, Any]:
    return {key: float(row[key]) for key in FLOATS} | {key: int(row[key]) for key in WHOLE}


def _interval(runs: Sequence[dict[str, Any]], key: str) -> tuple[float, ...]:
    return astuple(interval([run[key] for run in runs]))
