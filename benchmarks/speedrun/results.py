"""The results of verified records: results.json in each record's folder."""

import json
from pathlib import Path
from typing import Any

from records import numbered
from tracks import Track

FILE = "results.json"


def read(folder: Path) -> dict[str, Any] | None:
    """The results of the record in `folder`; None if it wasn't verified yet."""
    path = folder / FILE
    return json.loads(path.read_text()) if path.is_file() else None


def known_digests(track: Track) -> set[str]:
    """The digests of the track's verified records."""
    found = [read(folder) for folder in numbered(track.records)]
    return {each["digest"] for each in found if each}


def shown_time(track: Track) -> list[str]:
    """A line for each record: its figures in the table."""
    lines = ["table:"]
    for folder in numbered(track.records):
        found = read(folder)
        figures = "not measured yet"
        if found:
            mean, low, high = found["seconds"]
            ratio = found.get("ratio")
            against = f", {ratio[0]:.3f} of the time of the last" if ratio else ""
            figures = f"{mean:.1f} s ({low:.1f} to {high:.1f}), loss {found['loss']:.4f}{against}"
        lines.append(f"  {folder.name}: {figures}")
    return lines
