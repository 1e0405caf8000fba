"""The settings of the ablation."""

from dataclasses import dataclass

from cadenza.options import Range, Text, check, option
from cadenza.recipe.errors import nearest
from cadenza.studies.running.given import RecipePart, given

SEEDS = Range("[0, 4294967295]", whole=True)
COUNT = Range("[1, 2147483647]", whole=True)


@dataclass
class Row:
    """A recipe that is compared with others."""

    recipe: list[str] | None = option(None, "Files in place of the study's.", Text())
    overrides: list[str] = option([], "key=value pairs after the study's.", Text())
    against: list[str] = option([], "The rows that it is compared with.", Text())


@dataclass
class Ablation:
    """The settings."""

    recipe: list[str] = option([], "The files of the recipe that is pretrained.", Text())
    overrides: list[str] = option([], "key=value pairs of all rows.", Text())
    minutes: float = option(
        1.0, "Minutes of training in a pretraining run of the baseline.", Range("(0, 1e6]")
    )
    rows: dict = option({}, "Name -> `recipe`, `overrides` and `against` of a row; false leaves one out.")
    baseline: str = option("bert", "The row whose time and steps all rows get.", Text())
    reach: list[str] = option(["bert"], "Rows whose final loss the others are to reach.", Text())
    seeds: list[int] = option([17, 18, 19], "Of pretraining and of fine-tuning.", SEEDS)
    finetune: dict | None = option(None, "`recipe` and `overrides` of the fine-tuning; null: none.")
    rounds: int = option(15, "Rounds in which the training steps of all rows are timed.", Range("[2, 10000]"))
    processes: int | None = option(
        None, "Runs side by side; threads are cores // processes. Null: 1, or one a CUDA device.", COUNT
    )
    out: str = option("runs/studies/ablation", "The folder of the results.", Text())

    def __post_init__(self) -> None:
        check(self, "", ValueError)
        self.rows = {name: row for name, row in self.rows.items() if row is not False}
        for key in ("recipe", "seeds", "rows"):
            if not getattr(self, key):
                raise ValueError(f"{key} is empty; it must name one at least")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds is {self.seeds}; each must be there once")
        for name in self.rows:
            self._check_names(f"rows.{name}.against", self.row(name).against, others=set(self.rows) - {name})
        self._check_names("baseline", [self.baseline], set(self.rows))
        self._check_names("reach", self.reach, set(self.rows))
        if self.finetune is not None and not self.tuning.recipe:
            raise ValueError("finetune.recipe must name the recipe's files")

    def row(self, name: str) -> Row:
        """The row of this name."""
        return given(Row, f"rows.{name}", self.rows[name])

    @property
    def tuning(self) -> RecipePart:
        """The fine-tuning, of settings that have one."""
        return given(RecipePart, "finetune", self.finetune)

    @staticmethod
    def _check_names(key: str, names: list[str], others: set[str]) -> None:
        for name in names:
            if name not in others:
                raise ValueError(f"{key} names {name!r}, which is no other row; {nearest(name, others)}")
