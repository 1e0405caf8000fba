"""The end of a run: its record, with its curve and what it computed, and the plot of its curves."""

from pathlib import Path
from typing import Any

from cadenza.recipe import record
from cadenza.recipe.runs import curves, flops, rows
from cadenza.recipe.schema import Run


def record_of(recipe: Run, trained: bool, facts: dict[str, Any]) -> Path:
    """Write the record `facts` and the plot; a run that was evaluated once more keeps the record it has."""
    path = recipe.folder / record.FILE
    if not trained and path.is_file():
        return path
    found = rows.read(recipe.folder / rows.FILE)
    if facts["train"]["loss"] is None and found:  # training was over when this process began
        facts["train"]["loss"] = next((row["loss"] for row in reversed(found) if "loss" in row), None)
    path = record.write(
        recipe.folder, {**facts, "compute": _compute(found, facts), "curve": rows.curve(found)}
    )
    plot(recipe.folder)
    return path


def plot(folder: Path) -> None:
    """Draw the curves of the run in `folder`, or say that matplotlib, an extra, isn't installed."""
    try:
        path = curves.draw([curves.read(folder)], folder / curves.PLOT)
    except FileNotFoundError:
        return  # a run of a version that wrote no metrics
    except ImportError:
        print("no plot: matplotlib isn't installed (pip install 'cadenza[studies]')", flush=True)
    else:
        print(f"plot: {path}", flush=True)


def _compute(found: list[dict[str, Any]], facts: dict[str, Any]) -> dict[str, float | None]:
    """Floating-point operations of all of training, and their share of the device's peak."""
    total = found[-1].get("flops") if found else None
    seconds, devices = facts["train"]["seconds"], facts["device"]["world_size"]
    return {"flops": total, "mfu": flops.utilization(total, seconds, facts["precision"], devices)}
