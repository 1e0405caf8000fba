"""Errors of a run name the file of the recipe that they come from."""

import re
from collections.abc import Callable
from functools import wraps
from typing import Any

from cadenza.data import DataError
from cadenza.models import ModelError
from cadenza.recipe.errors import RecipeError
from cadenza.recipe.loading.sources import sets, source

KEY = re.compile(r"\w+(\.\w+)+")  # at the start of a message: `data.source`, `model.config.hidden_size`


def blamed(run: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`run`, a function of a recipe; an error that begins with a key names the source that set it last."""

    @wraps(run)
    def named(recipe: Any) -> Any:
        try:
            return run(recipe)
        except (RecipeError, DataError, ModelError) as error:
            key = KEY.match(str(error))
            if key is None or not any(sets(config, key[0]) for _, config in recipe.sources):
                raise
            raise type(error)(f"{source(key[0], recipe.sources)}: {error}") from error

    return named
