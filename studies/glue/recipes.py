"""The recipes of the tasks: merged from the study's settings, checked, and given to each run."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from cadenza.recipe import RecipeError, load
from cadenza.recipe.loading.sources import merged, values_of
from cadenza.recipe.runs.kept_recipe import UNCOMPARED
from cadenza.recipe.schema import ClassificationRecipe
from cadenza.studies.checks import StudyError
from cadenza.studies.glue.settings import Glue
from cadenza.studies.glue.weights import digest

PRETRAINED = "pretrained"
IGNORED = {*UNCOMPARED, "seed", "optimizer.lr", "model.pretrained"} - {"train.load_path"}
COMMAND_LINE = "command line"


class Cell(NamedTuple):
    """What identifies a run."""

    model: str
    task: str
    start: str  # PRETRAINED, or the task whose final model it starts from
    learning_rate: float
    seed: int

    @property
    def name(self) -> str:
        """The name of its run; a hash tells models whose names share an end."""
        model = re.sub(r"[^\w.-]", "_", short(self.model)).strip("._-") or "model"
        own = hashlib.sha256(self.model.encode()).hexdigest()[:6]
        start = "" if self.start == PRETRAINED else f"-after-{self.start}"
        return f"{model}-{own}/{self.task}{start}-{self.learning_rate}-{self.seed}"


def short(model: str) -> str:
    """The last part of a model's name or path."""
    return Path(model).name or model


class Recipes:
    """The recipes of the tasks in `cfg`; the sources of each are merged once."""

    def __init__(self, cfg: Glue) -> None:
        self.cfg = cfg
        self._loaded: dict[str, ClassificationRecipe] = {}
        self._values: dict[str, dict[str, Any]] = {}
        self._weights: dict[str, str] = {}

    def of_task(self, name: str) -> ClassificationRecipe:
        """The recipe of a task, with its own learning rate.

        Raises:
            StudyError: it can't be loaded or isn't of labelled text; the message names the task.
        """
        if name not in self._loaded:
            self._loaded[name] = self._load(name, [])
        return self._loaded[name]

    def of(self, cell: Cell, pretrained: str) -> ClassificationRecipe:
        """The recipe of a cell that trains on from `pretrained`."""
        own = {"optimizer.lr": cell.learning_rate, "seed": cell.seed, "model.pretrained": pretrained}
        recipe = self._load(cell.task, [_pair(key, value) for key, value in own.items()])
        folder = self.folder(cell)
        recipe.name, recipe.train.run_folder = cell.name, str(folder).removesuffix(f"/{cell.name}")
        recipe.train.progress_bar = False
        recipe.train.autoresume = recipe.train.save_interval is not None
        names = {COMMAND_LINE: f"tasks.{cell.task}"}
        sources: Any = recipe.sources
        recipe.sources = [(names.get(name, name), config) for name, config in sources]
        return recipe

    def folder(self, cell: Cell) -> Path:
        """The folder of a cell's run."""
        return Path(self.cfg.out) / "runs" / self.settings(cell) / cell.name

    def settings(self, cell: Cell) -> str:
        """A hash of all that a cell depends on beside its keys: recipe, weights, start."""
        found = [self._set(cell.task), self.weights(cell.model)]
        if cell.start != PRETRAINED:
            source, rates = self.cfg.task(cell.start), self.cfg.rates(cell.start)
            chosen = [source.seeds, source.metrics] if rates and len(rates) > 1 else []
            own = self.of_task(cell.start).optimizer.lr
            found += [self._set(cell.start), source.seeds[0], rates or [own], chosen]
        return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:12]

    def weights(self, model: str) -> str:
        """The digest of a model's weights, read once."""
        if model not in self._weights:
            self._weights[model] = digest(model)
        return self._weights[model]

    def _set(self, name: str) -> dict[str, Any]:
        """What the sources of a task's recipe set, without that which doesn't change a result."""
        if name not in self._values:
            found = _flat(values_of(*merged(self.cfg.recipe, self._pairs(name))))
            self._values[name] = {key: value for key, value in found.items() if not _ignored(key)}
        return self._values[name]

    def _load(self, name: str, more: list[str]) -> ClassificationRecipe:
        try:
            recipe = load(self.cfg.recipe, [*self._pairs(name), *more])
        except RecipeError as error:
            raise StudyError(f"tasks.{name}: {str(error).removeprefix(f'{COMMAND_LINE}: ')}") from error
        if not isinstance(recipe, ClassificationRecipe):
            right = "it must be text_classification"
            raise StudyError(f"tasks.{name}: model.objective is {recipe.model.objective}; {right}")
        return recipe

    def _pairs(self, name: str) -> list[str]:
        """The key=value pairs of a task: the shared data, the task's sections, the overrides."""
        sections = [{"data": self.cfg.data}, self.cfg.task(name).recipe]
        pairs = [_pair(key, value) for section in sections for key, value in _flat(section).items()]
        return [*pairs, *self.cfg.overrides]


def _pair(key: str, value: Any) -> str:
    return f"{key}={json.dumps(value)}"


def _flat(values: dict[str, Any], path: str = "") -> dict[str, Any]:
    """The values by their dotted keys; an empty mapping is a value."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        inner = isinstance(value, dict) and value
        found |= _flat(value, f"{path}{key}.") if inner else {f"{path}{key}": value}
    return found


def _ignored(key: str) -> bool:
    return any(f"{key}.".startswith(f"{name}.") for name in IGNORED)
