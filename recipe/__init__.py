"""Recipes: the schema, the merging and checking of YAML files, and the training."""

from cadenza.recipe.errors import RecipeError, TrainingError
from cadenza.recipe.loading.load import load, load_settings, resolved
from cadenza.recipe.schema import Recipe

__all__ = ["Recipe", "RecipeError", "TrainingError", "load", "load_settings", "resolved"]
