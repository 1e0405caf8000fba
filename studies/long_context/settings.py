"""The settings of the study."""

from dataclasses import dataclass

from cadenza.options import Range, Text, check, option
from cadenza.recipe.errors import nearest
from cadenza.studies.running.given import RecipePart, given

SEEDS = Range("[0, 4294967295]", whole=True)
COUNT = Range("[1, 2147483647]", whole=True)
SHARE = Range("[0, 1)")


@dataclass
class Row:
    """A way to extend the context."""

    overrides: list[str] = option([], "key=value pairs after those of `long`.", Text())
    against: list[str] = option([], "The rows that it is compared with.", Text())


@dataclass
class LongContext:
    """The settings."""

    short: dict = option({}, "`recipe` and `overrides` of the runs on short windows.")
    long: dict = option({}, "`recipe` and `overrides` of the runs that begin with their weights.")
    rows: dict = option({}, "Name -> `overrides` and `against` of a row; false leaves one out.")
    seeds: list[int] = option([17, 18, 19], "Of the short run and of those from it.", SEEDS)
    key_values: float = option(
        0.5, "The share of the training windows that hold keys with values in prose; 0: none.", SHARE
    )
    lengths: list[int] = option([128, 256, 512, 1024], "Tokens of the documents that are scored.", COUNT)
    documents: int = option(40, "Documents of evaluation text whose loss is measured.", COUNT)
    examples: int = option(50, "Documents with keys and values at each length.", COUNT)
    ruler: dict | None = option(
        None, "Settings of `cadenza.studies.ruler`, which then scores all models as well; null: it doesn't."
    )
    processes: int | None = option(
        None, "Runs side by side; threads are cores // processes. Null: 1, or one a CUDA device.", COUNT
    )
    out: str = option("runs/studies/long_context", "The folder of the results.", Text())

    def __post_init__(self) -> None:
        check(self, "", ValueError)
        self.rows = {name: row for name, row in self.rows.items() if row is not False}
        for key in ("seeds", "rows", "lengths"):
            if not getattr(self, key):
                raise ValueError(f"{key} is empty; it must name one at least")
        for key in ("short", "long"):
            if not self.part(key).recipe:
                raise ValueError(f"{key}.recipe must name the recipe's files")
        for key in ("seeds", "lengths"):
            if len(set(getattr(self, key))) < len(getattr(self, key)):
                raise ValueError(f"{key} is {getattr(self, key)}; each must be there once")
        self.lengths = sorted(self.lengths)
        for name in self.rows:
            self._check_row(name)

    def part(self, name: str) -> RecipePart:
        """The recipe of the runs on `short` or on `long` windows."""
        return given(RecipePart, name, getattr(self, name))

    def row(self, name: str) -> Row:
        """The row of this name."""
        return given(Row, f"rows.{name}", self.rows[name])

    def _check_row(self, name: str) -> None:
        if name == SHORT:
            raise ValueError(f"rows.{SHORT}: the run on short windows has this name; choose another")
        others = set(self.rows) - {name}
        for other in self.row(name).against:
            if other not in others:
                raise ValueError(
                    f"rows.{name}.against names {other!r}, no other row; {nearest(other, others)}"
                )


SHORT = "short"  # the run that all rows begin with
