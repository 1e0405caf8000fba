"""The optimizers of recipes: `optimizer_for` builds the one that a recipe names."""

from cadenza.recipe.optimizers.choice import optimizer_for, refuse_unusable

__all__ = ["optimizer_for", "refuse_unusable"]
