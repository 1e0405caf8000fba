"""RULER's tasks over the models of this study: a row is a model there, and its seeds are checkpoints."""

from pathlib import Path
from typing import Any

from cadenza.studies.checks import StudyError
from cadenza.studies.long_context.plan import Cell
from cadenza.studies.long_context.settings import LongContext
from cadenza.studies.ruler import page
from cadenza.studies.ruler import study as ruler
from cadenza.studies.ruler.settings import Ruler


def settings(cfg: LongContext, every: list[Cell]) -> Ruler:
    """The settings of that study.

    Raises:
        StudyError: `ruler` holds a value that doesn't fit, or a key that is set here.
    """
    given: dict[str, Any] = cfg.ruler or {}
    if taken := {"models", "out"} & set(given):
        raise StudyError(f"ruler.{min(taken)} is set by this study; leave it out")
    models: dict[str, list[str]] = {}
    for cell in every:
        models.setdefault(cell.row, []).append(str(cell.folder))
    try:
        return Ruler(
            **{"lengths": cfg.lengths, **given, "models": models, "out": str(Path(cfg.out) / "ruler")}
        )
    except (TypeError, ValueError) as error:
        raise StudyError(f"ruler: {error}") from error


def score(cfg: Ruler) -> None:
    """Score all models, and write the page and the plots of that study."""
    page.write(cfg, ruler.run(cfg))
