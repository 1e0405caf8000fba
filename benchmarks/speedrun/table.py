"""Write the table of records: records.csv and records.png of each track, and the tables in the README.

python benchmarks/speedrun/table.py
"""

import re
import sys
from pathlib import Path
from typing import Any

import plot
import results
from records import Record, numbered
from shown import of_interval
from tracks import FOLDER, TRACKS, Track
from verdict import FIRST, RECORD

from cadenza.studies.checks import StudyError, guarded, plots
from cadenza.studies.report import Row, as_csv, table

HEAD = ["record", "what changed", "seconds", "of the last", "of the first"]
HEAD += ["loss", "batches", "tokens/s", "CPU seconds", "commit"]
HEAD_TRIED = ["tried", "what changed", "against", "seconds, of its", "loss", "verdict"]


def main() -> int:
    """Write all files and return the exit code."""
    return guarded(lambda: write(FOLDER / "README.md", list(TRACKS.values())))


def write(readme: Path, tracks: list[Track]) -> None:
    """Write the tables of `tracks` between the marks in `readme`, and each track's files."""
    plots()
    text = readme.read_text()
    for track in tracks:
        rows = rows_of(track)
        if rows:
            as_csv(track.records / "records.csv", rows)
            plot.draw(track.records / "records.png", track, rows)
        text = marked(text, f"records {track.name}", records_table(track, rows))
        text = marked(text, f"tried {track.name}", tried_table(track))
    readme.write_text(text)
    print(f"written: {readme}")


def rows_of(track: Track) -> list[Row]:
    """A row for each verified record.

    Raises:
        StudyError: one isn't a record, was verified against another than the one before, or on other text.
    """
    rows: list[Row] = []
    for folder in numbered(track.records):
        kept = results.read(folder)
        if kept is None:
            continue
        _refuse(folder, kept, rows)
        share = kept["ratio"][0] * rows[-1]["of_the_first"] if rows else 1.0
        rows.append({"record": folder.name, **_row(Record(folder, track), kept), "of_the_first": share})
    return rows


def _refuse(folder: Path, kept: dict[str, Any], rows: list[Row]) -> None:
    if kept["verdict"] not in (RECORD, FIRST):
        where = f"{folder.parent.parent.parent.name}/tried/{folder.parent.name}"
        raise StudyError(f"{folder.name}: its verdict is {kept['verdict']}; move its folder to {where}")
    last = rows[-1]["record"] if rows else None
    if kept["against"] != last:
        raise StudyError(f"{folder.name}: verified against {kept['against']}; it must be against {last}")
    if rows and kept["digest"] != rows[0]["digest"]:
        raise StudyError(f"{folder.name}: digest {kept['digest']}; that of the table is {rows[0]['digest']}")


def _row(record: Record, kept: dict[str, Any]) -> Row:
    machine = kept["machine"]
    mean, low, high = kept["seconds"]
    ratio, ratio_low, ratio_high = kept["ratio"] or (None, None, None)
    return {
        **{"title": record.facts["title"], "changed": record.facts["changed"]},
        **{"seconds": mean, "seconds_low": low, "seconds_high": high},
        **{"ratio": ratio, "ratio_low": ratio_low, "ratio_high": ratio_high},
        **{"loss": kept["loss"], "losses": " ".join(f"{run['loss']:.4f}" for run in kept["runs"])},
        **{"batches": kept["runs"][0]["batches"], "tokens_per_second": kept["tokens_per_second"]},
        **{"cpu_seconds": kept["cpu_seconds"][0], "digest": kept["digest"]},
        **{"commit": machine["commit"], "dirty": machine["dirty"], "date": machine["date"]},
        **{"device": machine["device"], "threads": machine["threads"]},
    }


def records_table(track: Track, rows: list[Row]) -> str:
    """The records in Markdown, those that weren't measured as such."""
    measured = {row["record"]: row for row in rows}
    body = []
    for folder in numbered(track.records):
        row, facts = measured.get(folder.name), Record(folder, track).facts
        figures = _figures(row) if row else ["NOT MEASURED"] + [""] * (len(HEAD) - 3)
        body.append([f"[{folder.name}](records/{track.name}/{folder.name})", facts["changed"], *figures])
    return table(HEAD, body) if body else "No records yet."


def _figures(row: Row) -> list[str]:
    ratio = [row[key] for key in ("ratio", "ratio_low", "ratio_high")]
    return [
        of_interval([row["seconds"], row["seconds_low"], row["seconds_high"]], ".1f"),
        of_interval(ratio) if ratio[0] else "",
        f"{row['of_the_first']:.3f}",
        f"{row['loss']:.4f} ({row['losses'].replace(' ', ', ')})",
        f"{row['batches']:,}",
        f"{row['tokens_per_second']:,.0f}",
        f"{row['cpu_seconds']:.1f}",
        row["commit"][:9] + " with changes" * row["dirty"],
    ]


def tried_table(track: Track) -> str:
    """What was verified and is no record, in Markdown."""
    body = []
    for folder in numbered(track.tried):
        kept, facts = results.read_any(folder), Record(folder, track).facts
        figures = ["", "", "", "NOT MEASURED"]
        if kept:
            ratio = of_interval(kept["ratio"]) if kept["ratio"] else ""
            figures = [kept["against"] or "", ratio, f"{kept['loss']:.4f}", kept["verdict"]]
        body.append([f"[{folder.name}](tried/{track.name}/{folder.name})", facts["changed"], *figures])
    return table(HEAD_TRIED, body) if body else "Nothing yet."


def marked(text: str, name: str, content: str) -> str:
    """`text` with `content` between the marks `<!-- NAME -->` and `<!-- /NAME -->`.

    Raises:
        StudyError: the marks aren't there.
    """
    found = re.sub(
        f"(<!-- {name} -->\n).*?(<!-- /{name} -->)",
        lambda match: f"{match[1]}{content}\n{match[2]}",
        text,
        flags=re.S,
    )
    if f"<!-- {name} -->" not in text or f"<!-- /{name} -->" not in text:
        raise StudyError(f"README.md: the marks <!-- {name} --> and <!-- /{name} --> must be in it")
    return found


if __name__ == "__main__":
    sys.exit(main())
