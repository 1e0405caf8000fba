"""The recipe of a study's run: what it is loaded from, and its run."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from cadenza.recipe import RecipeError, load
from cadenza.recipe import run as recipe_run
from cadenza.studies.checks import StudyError

QUIET = ("train.progress_bar=false", "loggers={}")


@dataclass(frozen=True)
class Source:
    """What a recipe is loaded from; `where` names it in an error."""

    where: str
    files: tuple[str, ...]
    pairs: tuple[str, ...]

    def load(self, *more: str) -> Any:
        """The recipe, with `more` pairs after the others.

        Raises:
            StudyError: the recipe's error, with `where`.
        """
        try:
            return load(list(self.files), [*self.pairs, *more])
        except RecipeError as error:
            said = str(error).replace("command line: ", "overrides: ", 1)
            raise StudyError(f"{self.where}: {said}") from error

    @cached_property
    def settings(self) -> str:
        """A hash of the whole recipe."""
        return digest(asdict(self.load()))


def digest(*values: Any) -> str:
    """A short hash of `values`, which JSON can spell."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def trained(recipe: Any) -> dict[str, Any]:
    """The record of a run of `recipe`, which resumes one that was stopped.

    Raises:
        StudyError: its folder holds a run by another recipe.
    """
    path = recipe_run.train(recipe)
    if path is None:
        raise StudyError(f"{recipe.folder} holds a run by another recipe; remove the folder")
    return json.loads(path.read_text())
