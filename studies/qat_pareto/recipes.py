"""The recipes of the points, and what two recipes are compared by."""

import dataclasses
import re
from pathlib import Path
from typing import Any

from cadenza.algorithms import REGISTRY
from cadenza.recipe.runs.kept_recipe import compared
from cadenza.recipe.schema import ClassificationRecipe, ImageRecipe
from cadenza.studies.checks import StudyError
from cadenza.studies.qat_pareto.points import Point
from cadenza.studies.qat_pareto.settings import BASE, FULL, TECHNIQUE, Pareto
from cadenza.studies.running.source import QUIET, Source

Values = dict[str, Any]
ELSEWHERE = ("data.root", "data.cache_dir")  # where the same data lies on another machine
SAVING = "0.25dur"  # a stopped point resumes from there


def recipe_of(cfg: Pareto, point: Point, full: Path, *more: str) -> Any:
    """The recipe of a trained point; of a post-training point, that of the network in full precision.

    Args:
        full: the folder of the run of the same network and seed in full precision.
        more: further pairs.

    Raises:
        StudyError: the recipe can't be loaded, or its accuracy can't be compared.
    """
    kind = point.kind if point.kind.trained else point.kind.full
    recipe = _source(cfg, Point(kind, point.seed), full).load(*more)
    recipe.algorithms.pop(TECHNIQUE, None)  # the recipe's own bits give way
    if quantization := cfg.quantization(kind.bits, kind.variant):
        recipe.algorithms[TECHNIQUE] = quantization
    if recipe.train.save_interval is None:
        recipe.train.save_interval, recipe.train.keep_checkpoints = SAVING, 1
    _refuse_other_kind(recipe)
    return recipe


def comparable(recipe: Any, full: Path) -> Values:
    """What the results of `recipe` depend on, by dotted key, with all defaults.

    The folder `full`, and one of its name elsewhere, is `{full}`; so is a run's folder the same everywhere.
    """
    values = dataclasses.asdict(recipe)
    values["algorithms"] = {name: _with_defaults(name, own) for name, own in recipe.algorithms.items()}
    found = compared(values)
    place = re.compile(rf"{re.escape(str(full))}|[^\s]*/{re.escape(full.name)}(?=/|$)")
    return {
        key: place.sub(FULL, value) if isinstance(value, str) else value
        for key, value in found.items()
        if key not in ELSEWHERE
    }


def _source(cfg: Pareto, point: Point, full: Path) -> Source:
    kind, overrides = point.kind, cfg.variant(point.kind.variant).overrides
    network = [f"model.model_type={kind.model_type}"] if kind.model_type else []
    network += [] if kind.width is None else [f"model.width={kind.width}"]
    own = [pair.replace(FULL, str(full)) for pair in overrides]
    pairs = (*cfg.overrides, *own, *network, f"seed={point.seed}", *QUIET)
    where = "recipe" if kind.variant == BASE else f"variants.{kind.variant}"
    return Source(where, tuple(cfg.recipe), pairs)


def _with_defaults(name: str, options: Any) -> Any:
    cls: Any = REGISTRY.get(name)
    if cls is None or not isinstance(options, dict):
        return options
    defaults = {
        field.name: field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        for field in dataclasses.fields(cls)
        if field.init
    }
    return {**defaults, **options}


def _refuse_other_kind(recipe: Any) -> None:
    if not isinstance(recipe, ImageRecipe | ClassificationRecipe):
        objective = recipe.model.objective
        must = "it must be image_classification or text_classification, whose accuracy is compared"
        raise StudyError(f"recipe: model.objective is {objective}; {must}")
    if isinstance(recipe, ClassificationRecipe) and not recipe.data.classes:
        raise StudyError("recipe: data.target is number; it must be class, whose accuracy is compared")
