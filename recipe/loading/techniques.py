"""The section `algorithms`: which techniques and which of Composer's algorithms are on, and their options."""

import keyword
from typing import Any

from cadenza.algorithms import REGISTRY
from cadenza.recipe.errors import RecipeError, nearest
from cadenza.recipe.loading.sections import key_of, section
from cadenza.recipe.loading.sources import Sources, source
from cadenza.recipe.methods import COMPOSERS, options_of, refuse_misfits
from cadenza.recipe.schema import ImageRecipe

METHODS = {**COMPOSERS, **REGISTRY}


def techniques(listed: dict, sources: Sources) -> dict[str, dict]:
    """The options of each technique that is switched on, by name.

    Raises:
        RecipeError: an unknown technique or option, or a value that doesn't fit.
    """
    chosen = {}
    for name, options in listed.items():
        where = f"algorithms.{name}"
        if name not in METHODS:
            hint = nearest(str(name), METHODS)
            raise RecipeError(f"{source(where, sources)}: unknown technique {where}; {hint}")
        if options is False:
            continue
        options = {} if options in (None, True) else _field_names(options)
        section(options_of(name, METHODS[name]), options, where, sources)
        chosen[name] = options
    return chosen


def check_fit(recipe: Any, sources: Sources) -> None:
    """Composer's algorithms against the recipe's objective and length of rows."""
    images = isinstance(recipe, ImageRecipe)
    try:
        refuse_misfits(recipe.algorithms, images, None if images else recipe.data.max_seq_len)
    except ValueError as error:
        raise RecipeError(f"{source(key_of(error, 'algorithms', sources), sources)}: {error}") from error


def _field_names(options: Any) -> Any:
    """`options` with Python's keywords, such as `except`, spelt as fields of a dataclass: `except_`."""
    if not isinstance(options, dict):
        return options
    return {f"{key}_" if keyword.iskeyword(str(key)) else key: value for key, value in options.items()}
