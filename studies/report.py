"""What a study leaves behind: NAME.csv, NAME.md and NAME.png in a folder."""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """A command line with `--out`."""
    made = argparse.ArgumentParser(
        prog=f"python -m cadenza.studies.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--out", type=Path, default=Path("runs/studies"), help="folder (default: %(default)s)")
    return made


def write(folder: Path, name: str, rows: Sequence[Row], x: str, y: str, line: str, log: str = "xy") -> None:
    """Write the rows; `y` as a table of one row for each `line` and one column for each `x`, and plotted."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    table = markdown(rows, x, y, line)
    (folder / f"{name}.md").write_text(table + "\n")
    _plot(folder / f"{name}.png", rows, x, y, line, log)
    print(f"{table}\n\nwritten: {folder / name}.csv, .md, .png", flush=True)


def markdown(rows: Sequence[Row], x: str, y: str, line: str) -> str:
    """A Markdown table of `y`."""
    columns, lines = (list(dict.fromkeys(row[key] for row in rows)) for key in (x, line))
    cells = {(row[line], row[x]): row[y] for row in rows}
    head = [f"{y} by {x}", *map(str, columns)]
    body = [[str(each), *(_shown(cells.get((each, column))) for column in columns)] for each in lines]
    return "\n".join("| " + " | ".join(r) + " |" for r in [head, ["---"] * len(head), *body])


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.2g}" if isinstance(value, float) else str(value)


def _plot(path: Path, rows: Sequence[Row], x: str, y: str, line: str, log: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for name in dict.fromkeys(row[line] for row in rows):
        points = [(row[x], row[y]) for row in rows if row[line] == name]
        axes.plot(*zip(*points, strict=True), marker="o", label=str(name))
    if "x" in log:
        axes.set_xscale("log", base=2)
    if "y" in log:
        axes.set_yscale("log")
    axes.set(xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)
