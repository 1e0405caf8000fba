"""The recipes of the rows: loaded, and refused where rows wouldn't be comparable."""

import re
from dataclasses import asdict, replace
from typing import Any

from cadenza.data import DataError
from cadenza.data.labelled import sets
from cadenza.recipe import Recipe
from cadenza.recipe.schema import ClassificationRecipe
from cadenza.studies.ablation.settings import Ablation
from cadenza.studies.checks import StudyError
from cadenza.studies.running.source import QUIET, Source

Values = dict[str, Any]
TRAINING_ALONE = ("mlm_probability", "num_workers", "cache_dir")  # of `data`: no evaluation depends on them
LENGTH = re.compile(
    r"(?P<number>\d+(\.\d+)?)(ep|ba|sp|tok|iter|sec)"
)  # a time that isn't a share of training


def of_rows(cfg: Ablation) -> dict[str, Source]:
    """The source of each row's recipe.

    Raises:
        StudyError: a recipe that can't be loaded, or whose results couldn't be compared with the baseline's.
    """
    found = {}
    for name in cfg.rows:
        row = cfg.row(name)
        files, pairs = row.recipe or cfg.recipe, [*cfg.overrides, *row.overrides]
        found[name] = Source(f"rows.{name}", tuple(files), (*pairs, *QUIET))
    recipes = {name: source.load() for name, source in found.items()}
    for name, recipe in recipes.items():
        _refuse_other_kind(name, recipe)
        _refuse_other_evaluation(name, recipe, cfg.baseline, recipes[cfg.baseline])
        _refuse_fixed_times(f"rows.{name}", recipe)
    return found


def of_finetuning(cfg: Ablation) -> Source | None:
    """The source of the recipe of the fine-tuning; None if there is none.

    Raises:
        StudyError: the recipe can't be loaded, trains no classes, or names data that can't be read.
    """
    if cfg.finetune is None:
        return None
    pairs = (*cfg.tuning.overrides, *QUIET, "model.pretrained=pretrained")  # each cell names its own
    source = Source("finetune", tuple(cfg.tuning.recipe), pairs)
    recipe = source.load()
    if not isinstance(recipe, ClassificationRecipe):
        raise StudyError("finetune: model.objective must be text_classification, whose accuracy is compared")
    if not recipe.data.classes:
        raise StudyError("finetune: data.target is number; it must be class, whose accuracy is compared")
    try:
        sets.read(recipe.data)
    except DataError as error:
        raise StudyError(f"finetune: {error}") from error
    return source


def left_out(recipe: Recipe, other: Recipe) -> list[str]:
    """The techniques of `other` that `recipe` lacks, if the two differ in nothing else; else nothing."""
    left = [name for name in other.algorithms if name not in recipe.algorithms]
    kept = {name: options for name, options in other.algorithms.items() if name not in left}
    same = replace(other, algorithms=kept, name=recipe.name)
    return left if asdict(same) == asdict(recipe) else []


def _refuse_other_kind(name: str, recipe: Any) -> None:
    if not isinstance(recipe, Recipe):
        objective = recipe.model.objective
        raise StudyError(f"rows.{name}: model.objective is {objective}; it must be that of a language model")


def _refuse_other_evaluation(name: str, recipe: Recipe, baseline: str, other: Recipe) -> None:
    """Raise unless the two are evaluated on the same tokens, masked alike."""
    ours, theirs = _evaluation(recipe), _evaluation(other)
    for key, value in ours.items():
        if value != theirs[key]:
            raise StudyError(
                f"rows.{name}: {key} is {value}, in rows.{baseline} {theirs[key]}; losses can be compared on "
                "the same evaluation alone, so set both alike"
            )


def _evaluation(recipe: Recipe) -> Values:
    data = {f"data.{k}": v for k, v in asdict(recipe.data).items() if k not in TRAINING_ALONE}
    tokenizer = {f"tokenizer.{k}": v for k, v in asdict(recipe.tokenizer).items()}
    return {"model.objective": recipe.model.objective, **tokenizer, **data}


def _refuse_fixed_times(where: str, recipe: Recipe) -> None:
    """Raise for a schedule that wouldn't scale with the number of steps."""
    for key, value in _texts({"scheduler": asdict(recipe.scheduler), "algorithms": recipe.algorithms}):
        found = LENGTH.fullmatch(value)
        if found and float(found["number"]) > 0:
            raise StudyError(
                f"{where}: {key} is {value}; runs have different lengths here, so write a share, such as "
                "0.06dur"
            )


def _texts(values: Values, path: str = "") -> list[tuple[str, str]]:
    """The texts in nested mappings, by their dotted keys."""
    found = []
    for key, value in values.items():
        if isinstance(value, dict):
            found += _texts(value, f"{path}{key}.")
        elif isinstance(value, str):
            found.append((f"{path}{key}", value))
    return found
