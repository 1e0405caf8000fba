"""The rows of `metrics.jsonl`: read, and continued after a resume."""

import json
from pathlib import Path
from typing import Any, TextIO

from cadenza.recipe.record import set_aside

FILE = "metrics.jsonl"


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of the file at `path`, but for a last one that was cut off; none if there is no file."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def continued(path: Path, batch: int) -> TextIO:
    """The file at `path`, open to append, without rows after `batch`.

    Training that starts at batch 0 is another one: the file of an earlier one is set aside.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if batch == 0:
        set_aside(path)
    kept = [json.dumps(row) + "\n" for row in read(path) if row["batch"] <= batch]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    temporary.replace(path)
    return path.open("a", encoding="utf-8")


def curve(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of evaluations, flat: their time beside their values."""
    rows = [(dict(row), row["evaluation"]) for row in found if "evaluation" in row]
    return [{**{k: v for k, v in row.items() if k != "evaluation"}, **values} for row, values in rows]
