"""A point, measured in its own process."""

from cadenza.studies.qat_pareto.after import quantized_after
from cadenza.studies.qat_pareto.collecting import scores_of
from cadenza.studies.qat_pareto.cost import cost_of
from cadenza.studies.qat_pareto.plan import Cell
from cadenza.studies.report import Row
from cadenza.studies.running.source import trained


def measured(cell: Cell) -> Row:
    """Train or quantize a point; its row."""
    if cell.point.kind.trained:
        return row(cell, scores_of(trained(cell.recipe)), str(cell.recipe.folder))
    record = quantized_after(cell)
    record["train"]["seconds"] = 0.0
    return row(cell, {**scores_of(record), "versions": ""}, str(cell.recipe.folder))


def row(cell: Cell, scores: Row, run: str) -> Row:
    """A row of the study's file; `run` is the folder of the run that was trained."""
    return {
        **cell.point.kind._asdict(),
        "seed": cell.point.seed,
        **scores,
        **cost_of(cell),
        "run": run,
        "settings": cell.settings,
    }
