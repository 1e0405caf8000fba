"""Load a recipe from files and `key=value` pairs.

1. `sources.merged`: the sources are merged from left to right; later ones override earlier ones.
2. `sections.section`: each mapping becomes its dataclass of `schema`, whose fields declare what fits.
3. `techniques.techniques`: the same for the options of each technique.
4. `effects.without_effect`: a warning names each key that is set in vain.

An error names the source that set the wrong value last.
"""

import dataclasses
import warnings
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cadenza.recipe.errors import RecipeError, nearest
from cadenza.recipe.loading.effects import without_effect
from cadenza.recipe.loading.sections import section
from cadenza.recipe.loading.sources import Sources, merged, source, values_of
from cadenza.recipe.loading.techniques import check_fit, techniques
from cadenza.recipe.runs.places import expand
from cadenza.recipe.schema import (
    IMAGES,
    OBJECTIVES,
    TEXT_CLASSES,
    ClassificationRecipe,
    ImageRecipe,
    Recipe,
    Run,
)


def load(files: list[str], overrides: list[str]) -> Recipe | ClassificationRecipe | ImageRecipe:
    """The recipe that `files` and `key=value` pairs give; its class depends on `model.objective`.

    Raises:
        RecipeError: a missing file, invalid YAML, an unknown key, a wrong type or value.
    """
    config, sources = merged(files, overrides)
    recipe = section(_class_of(config, sources), values_of(config, sources), "", sources)
    recipe.algorithms = techniques(recipe.algorithms, sources)
    check_fit(recipe, sources)
    expand(recipe)
    recipe.sources = sources
    for line in without_effect(recipe, sources):
        warnings.warn(line, stacklevel=2)
    return recipe


def load_settings(cls: Any, files: list[str], overrides: list[str]) -> Any:
    """An instance of the dataclass `cls`, such as a study's settings; otherwise like `load`."""
    config, sources = merged(files, overrides)
    return section(cls, values_of(config, sources), "", sources)


def resolved(recipe: Run) -> str:
    """The recipe as YAML, with all defaults."""
    return OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(recipe)))


def _class_of(config: Any, sources: Sources) -> type[Run]:
    key = "model.objective"
    try:
        objective = OmegaConf.select(config, key)
    except OmegaConfBaseException:  # `values_of` reports it with its file
        return Recipe
    if isinstance(objective, str) and objective not in OBJECTIVES:
        hint = nearest(objective, OBJECTIVES)
        raise RecipeError(f"{source(key, sources)}: {key} is {objective!r}; {hint}")
    return {IMAGES: ImageRecipe, TEXT_CLASSES: ClassificationRecipe}.get(str(objective), Recipe)
