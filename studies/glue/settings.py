"""The settings of the study, and of each of its tasks."""

from dataclasses import dataclass, fields
from typing import Any

from cadenza.options import Range, Text, check, option, shown
from cadenza.recipe.errors import RecipeError, nearest
from cadenza.recipe.loading.sections import section
from cadenza.recipe.schema import ClassificationRecipe

SEEDS = Range("[0, 4294967295]", whole=True)
RATES = Range("(0, 1000]")
COUNT = Range("[1, 2147483647]", whole=True)
SET_BY_CELL = ("name", "seed")  # keys of a recipe that each cell sets
SECTIONS = [field.name for field in fields(ClassificationRecipe) if field.name not in SET_BY_CELL]


@dataclass
class Task:
    """A task's own keys; `recipe` holds sections of the recipe, such as `data` and `optimizer`."""

    seeds: list[int] = option(meaning="A run for each.", valid=SEEDS)
    metrics: list[str] = option(
        ["accuracy"], "Entries of a run's `eval`; `NAME.accuracy` is of data.other_eval.NAME.", Text()
    )
    after: str | None = option(
        None, "A task; then this one starts from that one's final model, too, of its first seed.", Text()
    )
    learning_rates: list[float] | None = option(None, "In place of the study's.", RATES)
    recipe: dict = option({}, "Sections of the recipe.")


STUDY_KEYS = tuple(field.name for field in fields(Task) if field.name != "recipe")


@dataclass
class Glue:
    """The settings."""

    models: list[str] = option([], "Hub names, folders, folders of runs, or checkpoints.", Text())
    recipe: list[str] = option(["yamls/finetune.yaml"], "The files of the recipe that is trained.", Text())
    overrides: list[str] = option([], "The recipe's key=value pairs, which replace the tasks'.", Text())
    data: dict = option({}, "The recipe's section `data`, of all tasks; a task's replaces its keys.")
    tasks: dict = option(
        {},
        f"Name -> sections of the recipe, and {', '.join(STUDY_KEYS)}; null leaves a task out.",
    )
    learning_rates: list[float] | None = option(
        None,
        "Rates to try for each task; the one with the highest mean score counts. Null: the task's.",
        RATES,
    )
    processes: int | None = option(
        None, "Runs side by side; null: one on each CUDA device, or one on a CPU.", COUNT
    )
    keep_models: bool = option(
        False, "Keep the model of each run; else only those that another task starts from."
    )
    out: str = option("runs/studies/glue", "The folder of the results.", Text())

    def __post_init__(self) -> None:
        check(self, "", ValueError)
        for key in ("models", "recipe", "tasks"):
            if not getattr(self, key):
                raise ValueError(f"{key} is empty; it must name one at least")
        for key in ("models", "learning_rates"):
            _refuse_twice(key, getattr(self, key) or [])
        self.tasks = {str(name): task for name, task in self.tasks.items() if task is not None}
        for name in self.tasks:
            self._check_after(name, self.task(name).after)

    def task(self, name: str) -> Task:
        """The task of this name.

        Raises:
            ValueError: an unknown key, or a value that doesn't fit.
        """
        return _task(f"tasks.{name}", self.tasks[name])

    def rates(self, name: str) -> list[float] | None:
        """The learning rates to try for a task; None: its own."""
        own = self.task(name).learning_rates
        return self.learning_rates if own is None else own

    def sources(self) -> set[str]:
        """The tasks that another one starts from."""
        return {task.after for task in map(self.task, self.tasks) if task.after is not None}

    def _check_after(self, name: str, after: str | None) -> None:
        others = [other for other in self.tasks if other != name]
        if after is not None and after not in others:
            hint = nearest(after, others) if others else "there is no other task"
            raise ValueError(f"tasks.{name}.after: there is no other task {after!r}; {hint}")


def _task(where: str, values: Any) -> Task:
    if not isinstance(values, dict):
        raise ValueError(f"{where} must be a mapping, not {shown(values)}")
    for key in values:
        if key not in (*STUDY_KEYS, *SECTIONS):
            raise ValueError(f"unknown key {where}.{key}; {nearest(str(key), [*STUDY_KEYS, *SECTIONS])}")
    own = {key: value for key, value in values.items() if key in STUDY_KEYS}
    recipe = {key: value for key, value in values.items() if key in SECTIONS}
    try:
        task = section(Task, {**own, "recipe": recipe}, where, [])
    except RecipeError as error:
        raise ValueError(str(error).removeprefix("recipe: ")) from error
    for key in ("seeds", "metrics", "learning_rates"):
        if getattr(task, key) == []:
            raise ValueError(f"{where}.{key} is empty; it must name one at least")
        _refuse_twice(f"{where}.{key}", getattr(task, key) or [])
    return task


def _refuse_twice(key: str, values: list[Any]) -> None:
    if len(set(values)) < len(values):
        raise ValueError(f"{key} is {shown(values)}; each must be there once")
