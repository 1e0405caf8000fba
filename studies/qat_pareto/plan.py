"""The plan of the study: each point with its recipe, and the folder of its run, here or collected."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cadenza.studies.checks import StudyError
from cadenza.studies.qat_pareto import recipes
from cadenza.studies.qat_pareto.points import Point, points
from cadenza.studies.qat_pareto.settings import Pareto
from cadenza.studies.running.source import digest

CALIBRATION = 20  # batches of post-training calibration


@dataclass(frozen=True)
class Cell:
    """A point that a process measures.

    Args:
        recipe: the recipe of its run; of a post-training point, of the run whose network it quantizes.
        quantization: the options of `quantization_aware_training`; none in full precision.
        settings: a hash of what its results depend on.
    """

    point: Point
    recipe: Any
    quantization: dict[str, Any]
    settings: str


@dataclass
class Plan:
    """The points of the settings.

    Args:
        collected: the folders of runs that other studies or machines finished, by point.
    """

    cfg: Pareto
    collected: dict[Point, Path] = field(default_factory=dict)
    _hashes: dict[Point, str] = field(default_factory=dict)

    @property
    def points(self) -> list[Point]:
        """All of them, those that others start from first."""
        return points(self.cfg)

    def settings(self, point: Point) -> str:
        """A hash of what the results of the point depend on; no folder of a run is part of it."""
        if point not in self._hashes:
            self._hashes[point] = digest(self._depends_on(point))
        return self._hashes[point]

    def comparable(self, point: Point) -> recipes.Values:
        """What the results of a trained point depend on, by the keys of its recipe."""
        full = self._own_full(point)
        return recipes.comparable(recipes.recipe_of(self.cfg, point, full), full)

    def folder(self, point: Point) -> Path:
        """The folder of the run of a trained point."""
        return self.collected.get(point) or self._own_folder(point)

    def cell(self, point: Point) -> Cell:
        """The point, ready to be measured."""
        folder = self.folder(point if point.kind.trained else point.full)
        places = (f"name={folder.name}", f"train.run_folder={folder.parent}", "train.autoresume=true")
        recipe = recipes.recipe_of(self.cfg, point, self.folder(point.full), *places)
        quantization = self.cfg.quantization(point.kind.bits, point.kind.variant)
        return Cell(point, recipe, quantization, self.settings(point))

    def after(self, point: Point) -> list[Point]:
        """The points that must be there before."""
        needs = not point.kind.trained or self.cfg.variant(point.kind.variant).needs_full
        return [point.full] if needs else []

    def refuse_without_weights(self) -> None:
        """Raise `StudyError` if a point starts from a collected run that came without checkpoints."""
        for point in self.points:
            for first in self.after(point):
                folder = self.collected.get(first)
                if folder is not None and not any(folder.glob("checkpoints/*.pt")):
                    raise StudyError(
                        f"{point.name} starts from the weights of {folder}, which has no checkpoints; copy "
                        "the folder whole, or leave the point out"
                    )

    def _depends_on(self, point: Point) -> list[Any]:
        if point.kind.trained:
            return [self.comparable(point)]
        return [self.settings(point.full), self.cfg.quantization(point.kind.bits), CALIBRATION]

    def _own_folder(self, point: Point) -> Path:
        return Path(self.cfg.out) / "runs" / f"{point.name}-{self.settings(point)}"

    def _own_full(self, point: Point) -> Path:
        """The folder of the run in full precision; that run itself names none."""
        return Path("no-run") if point == point.full else self._own_folder(point.full)
