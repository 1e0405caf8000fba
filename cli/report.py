"""`cadenza report`: the loss of runs against steps, tokens and seconds, as a plot and a table."""

import argparse
from pathlib import Path
from typing import Any

from cadenza.cli.errors import CommandError

HEAD = ("run", "model", "batches", "seconds", "tokens", "a second", "training loss", "evaluation loss")


def run(arguments: list[str]) -> int:
    """Draw and print."""
    parser = argparse.ArgumentParser(
        prog="cadenza report",
        description="Draw the loss of runs against steps, tokens (or images) and seconds, and print a table.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders, such as runs/mosaicbert-base")
    help = "the plot's file (default: report.png, in the run's folder if it is one run)"
    parser.add_argument("-o", "--output", type=Path, help=help)
    options = parser.parse_args(arguments)
    folders = [folder.expanduser() for folder in options.runs]
    found = [curves(folder) for folder in folders]
    print(table([row(each) for each in found]))
    default = folders[0] / "report.png" if len(folders) == 1 else Path("report.png")
    print(plotted(found, options.output or default))
    return 0


def curves(folder: Path) -> Any:
    """The curves of the run in `folder`.

    Raises:
        CommandError: it isn't the folder of a run.
    """
    from cadenza.recipe.runs.curves import read

    try:
        return read(folder)
    except FileNotFoundError as error:
        raise CommandError(f"report: {error}; name the folder of a run, such as runs/NAME") from error


def plotted(found: list[Any], target: Path) -> str:
    """Draw; returns the line that says where, or why not."""
    from cadenza.recipe.runs.report import draw

    try:
        return f"plot: {draw(found, target)}"
    except ImportError:
        return "no plot: matplotlib isn't installed; pip install 'cadenza[studies]'"
    except OSError as error:
        raise CommandError(f"report: {target} can't be written ({error.strerror})") from error


def row(run: Any) -> list[str]:
    """The cells of a run: its last training row and its last evaluation."""
    last = run.training[-1] if run.training else {}
    unit = "tokens" if "tokens" in last else "samples"
    rates = [each[f"{unit}_per_second"] for each in run.training if f"{unit}_per_second" in each]
    rate = sorted(rates)[len(rates) // 2] if rates else None
    evaluation = run.evaluation[-1].get("loss") if run.evaluation else None
    numbers = [last.get("batch"), last.get("seconds"), last.get(unit), rate]
    losses = ["" if each is None else f"{each:.3f}" for each in (last.get("loss"), evaluation)]
    return [run.name, run.model, *("" if each is None else f"{each:,.0f}" for each in numbers), *losses]


def table(rows: list[list[str]]) -> str:
    """The rows under `HEAD`, in columns."""
    whole = [list(HEAD), *rows]
    widths = [max(len(each[n]) for each in whole) for n in range(len(HEAD))]
    lines = [
        "  ".join(_padded(n, *each) for n, each in enumerate(zip(cells, widths, strict=True)))
        for cells in whole
    ]
    return "\n".join(line.rstrip() for line in lines)


def _padded(column: int, cell: str, width: int) -> str:
    return cell.ljust(width) if column < 2 else cell.rjust(width)  # numbers stand at the right
