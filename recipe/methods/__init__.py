"""What a recipe's `algorithms` can name: Cadenza's techniques, and Composer's own algorithms."""

from cadenza.recipe.methods.composers import COMPOSERS, REPLACING, refuse_misfits
from cadenza.recipe.methods.options import options_of

__all__ = ["COMPOSERS", "REPLACING", "options_of", "refuse_misfits"]
