"""The memory that a device needs for a recipe, by part, before data or weights are loaded."""

from cadenza.recipe.memory.estimate import Estimate, estimate
from cadenza.recipe.memory.setting import Setting
from cadenza.recipe.memory.table import lines

__all__ = ["Estimate", "Setting", "estimate", "lines"]
