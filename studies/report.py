"""The output of a study: NAME.csv, NAME.md and NAME.png in a folder."""

import argparse
import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cadenza.studies.checks import Parser

Row = dict[str, Any]


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """A command line with the option `--out`."""
    made = Parser(
        prog=f"python -m cadenza.studies.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--out", type=Path, default=Path("runs/studies"), help="folder (default: %(default)s)")
    return made


def write(folder: Path, name: str, rows: Sequence[Row], x: str, y: str, line: str, log: str = "xy") -> None:
    """Write `rows` as CSV, and `y` as a table (see `markdown`) and as a plot with a line for each `line`.

    `log` names the logarithmic axes of the plot.
    """
    as_csv(folder / f"{name}.csv", rows)
    text = markdown(rows, x, y, line)
    (folder / f"{name}.md").write_text(text + "\n")
    _plot(folder / f"{name}.png", rows, x, y, line, log)
    print(f"{text}\n\nwritten: {folder / name}.csv, .md, .png", flush=True)


def as_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write `rows` to `path`, with the names of the first row's columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def markdown(rows: Sequence[Row], x: str, y: str, line: str) -> str:
    """A Markdown table of `y`, with a row for each value of `line` and a column for each value of `x`."""
    columns, lines = (list(dict.fromkeys(row[key] for row in rows)) for key in (x, line))
    values = {(row[line], row[x]): row[y] for row in rows}
    body = [[str(each), *(_cell(values.get((each, column))) for column in columns)] for each in lines]
    return table([f"{y} by {x}", *map(str, columns)], body)


def table(head: list[str], body: list[list[str]]) -> str:
    """A Markdown table of these texts."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *body])


def as_json(content: Any) -> str:
    """`content` as JSON, with null in the place of each number that isn't finite, which JSON lacks."""
    return json.dumps(_finite(content), indent=2) + "\n"


def holds(condition: bool) -> str:
    """Whether a finding of a paper holds in the study."""
    return "holds here." if condition else "doesn't hold here."


def new_axes() -> Any:
    """The axes of a new figure of 840 x 540 pixels, which opens no window."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(7, 4.5), layout="constrained")[1]


def save(axes: Any, path: Path) -> None:
    """Write the figure of `axes` to `path`, with a grid and a legend, and close it."""
    import matplotlib.pyplot as plt

    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    axes.figure.savefig(path, dpi=120)
    plt.close(axes.figure)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.2g}" if isinstance(value, float) else str(value)


def _plot(path: Path, rows: Sequence[Row], x: str, y: str, line: str, log: str) -> None:
    axes = new_axes()
    for name in dict.fromkeys(row[line] for row in rows):
        points = [(row[x], row[y]) for row in rows if row[line] == name]
        axes.plot(*zip(*points, strict=True), marker="o", label=str(name))
    if "x" in log:
        axes.set_xscale("log", base=2)
    if "y" in log:
        axes.set_yscale("log")
    axes.set(xlabel=x, ylabel=y)
    save(axes, path)
