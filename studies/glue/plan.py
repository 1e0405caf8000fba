"""The cells of the study: a run for each model, task, start, learning rate and seed, and their order."""

from collections.abc import Iterator

from cadenza.data import DataError
from cadenza.data.labelled.sets import read
from cadenza.recipe.errors import nearest
from cadenza.studies.checks import StudyError
from cadenza.studies.glue.recipes import PRETRAINED, Cell, Recipes
from cadenza.studies.glue.settings import Glue

METRICS = {"class": ("accuracy", "f1", "mcc"), "number": ("spearman", "pearson")}


class Plan:
    """The cells of `cfg`."""

    def __init__(self, cfg: Glue) -> None:
        self.cfg, self.recipes = cfg, Recipes(cfg)

    def cells(self) -> list[Cell]:
        """All cells, those first that others start from."""
        every = [
            cell for model in self.cfg.models for name in self.cfg.tasks for cell in self._of(model, name)
        ]
        first = self.cfg.sources()
        return sorted(every, key=lambda cell: (cell.start != PRETRAINED, cell.task not in first))

    def _of(self, model: str, name: str) -> Iterator[Cell]:
        task = self.cfg.task(name)
        rates = self.cfg.rates(name) or [self.recipes.of_task(name).optimizer.lr]
        for start in [PRETRAINED, *([task.after] if task.after else [])]:
            yield from (Cell(model, name, start, rate, seed) for rate in rates for seed in task.seeds)

    def candidates(self, cell: Cell) -> list[Cell]:
        """The cells one of whose models `cell` starts from: the first seed's, of each learning rate."""
        first = self.cfg.task(cell.start).seeds[0] if cell.start != PRETRAINED else None
        return [source for source in self._sources(cell) if source.seed == first]

    def waits_for(self, cell: Cell) -> list[Cell]:
        """The cells that must be done before: one, or all that tell which learning rate is the best."""
        found = self.candidates(cell)
        return found if len(found) < 2 else self._sources(cell)

    def _sources(self, cell: Cell) -> list[Cell]:
        if cell.start == PRETRAINED:
            return []
        return [source for source in self._of(cell.model, cell.start) if source.start == PRETRAINED]

    def check(self) -> None:
        """Raise `StudyError` for a wrong recipe, metric or model."""
        for name in self.cfg.tasks:
            self._check_task(name)
        for model in self.cfg.models:
            self.recipes.weights(model)

    def check_data(self, name: str) -> None:
        """Raise `StudyError` if the examples of a task can't be read."""
        try:
            read(self.recipes.of_task(name).data)
        except DataError as error:
            raise StudyError(f"tasks.{name}: {error}") from error

    def _check_task(self, name: str) -> None:
        data = self.recipes.of_task(name).data
        for metric in self.cfg.task(name).metrics:
            other, _, last = metric.rpartition(".")
            where, valid = f"tasks.{name}.metrics: {metric!r}", METRICS[data.target]
            if other and other not in data.other_eval:
                known = nearest(other, data.other_eval) if data.other_eval else "it is empty"
                raise StudyError(f"{where} is of data.other_eval.{other}, which isn't there; {known}")
            if last not in valid:
                hint = nearest(last, valid)
                raise StudyError(f"{where} isn't measured with data.target {data.target}; {hint}")
