"""The schema of a recipe: the fields of these dataclasses are the keys, with types, ranges and meanings."""

from cadenza.recipe.schema.models import (
    IMAGES,
    OBJECTIVES,
    TEXT_CLASSES,
    ClassifierModel,
    ImageModel,
    Model,
)
from cadenza.recipe.schema.recipes import ClassificationRecipe, ImageRecipe, Recipe, Run
from cadenza.recipe.schema.training import Optimizer, Scheduler, Train

__all__ = [
    "IMAGES",
    "OBJECTIVES",
    "TEXT_CLASSES",
    "ClassificationRecipe",
    "ClassifierModel",
    "ImageModel",
    "ImageRecipe",
    "Model",
    "Optimizer",
    "Recipe",
    "Run",
    "Scheduler",
    "Train",
]
