"""The techniques that a pretrained model was changed by belong to the recipe that goes on from it.

Its checkpoints then name them, so that a resume and `export` build the same model.
"""

import dataclasses
from typing import Any, TypeVar

from cadenza.algorithms import REGISTRY
from cadenza.models.pretrained import recorded
from cadenza.recipe.errors import RecipeError
from cadenza.recipe.schema import Recipe

AnyRun = TypeVar("AnyRun")


def with_recorded(recipe: AnyRun) -> AnyRun:
    """`recipe` with the techniques of `model.pretrained` in its `algorithms`; as it is, if there are none.

    Raises:
        RecipeError: the recipe has one of them with other options, or can't have it.
        ModelError: one that this version doesn't have.
    """
    if not isinstance(recipe, Recipe) or recipe.model.pretrained is None:
        return recipe
    found = recorded(recipe.model.pretrained)
    for name in found.keys() & recipe.algorithms.keys():
        _refuse_other_options(name, found[name], recipe)
    if "vocab_padding" in found:  # new words may make its vocabulary a multiple
        found["vocab_padding"]["strict"] = False
    missing = {name: options for name, options in found.items() if name not in recipe.algorithms}
    return _with(recipe, {**missing, **recipe.algorithms}) if missing else recipe


def _refuse_other_options(name: str, theirs: dict[str, Any], recipe: Recipe) -> None:
    ours = REGISTRY[name](**recipe.algorithms[name]).options
    if ours != theirs:
        changed = f"model.pretrained {recipe.model.pretrained} was changed by it with {theirs}"
        raise RecipeError(f"algorithms.{name} is {ours}; {changed}: leave algorithms.{name} out")


def _with(recipe: Recipe, algorithms: dict[str, Any]) -> Recipe:
    try:
        changed = dataclasses.replace(recipe, algorithms=algorithms)
    except ValueError as error:
        where = f"model.pretrained: {recipe.model.pretrained} has techniques that don't fit the recipe"
        raise RecipeError(f"{where} ({error})") from error
    changed.sources = recipe.sources
    return changed
