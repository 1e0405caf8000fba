"""Which runs the study takes: for each seed one on short windows, and from it one of each row."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cadenza.recipe.schema import Recipe
from cadenza.studies.checks import StudyError
from cadenza.studies.long_context import text
from cadenza.studies.long_context.settings import SHORT, LongContext
from cadenza.studies.running.cells import fingerprint
from cadenza.studies.running.source import QUIET, Source, digest

SCORED = ("lengths", "documents", "examples")  # what scores depend on
DOCUMENTS = 20_000  # with keys and values, to train on


@dataclass(frozen=True)
class Cell:
    """A row with a seed; the row `short` is what the others begin with.

    Args:
        scored: a hash of the settings of the scores.
    """

    row: str
    seed: int
    source: Source
    start: "Cell | None"
    scored: str
    out: str

    @property
    def pairs(self) -> tuple[str, ...]:
        """The pairs that its results depend on beside the row's."""
        if self.start is None:
            return (f"seed={self.seed}",)
        start = str(self.start.folder)
        return f"seed={self.seed}", f"model.pretrained={start}", f"tokenizer.name={start}"

    @cached_property
    def settings(self) -> str:
        """A hash of the recipes and of the settings of the scores, which names a finished cell."""
        before = self.start and self.start.settings
        return digest(self.source.settings, self.seed, before, self.scored)

    @property
    def name(self) -> str:
        """The name of its run."""
        before = self.start and self.start.source.settings
        return f"{self.row}-{self.seed}-{digest(self.source.settings, before)}"

    @property
    def folder(self) -> Path:
        """The folder of its run."""
        return Path(self.out).absolute() / self.name


def sources(cfg: LongContext) -> dict[str, Source]:
    """The source of the recipe of each row, and of `short`.

    Raises:
        StudyError: a recipe that can't be loaded, or is no causal LM's.
    """
    short, long = cfg.part(SHORT), cfg.part("long")
    found = {SHORT: Source(SHORT, tuple(short.recipe), (*short.overrides, *QUIET))}
    for name in cfg.rows:
        pairs = (*long.overrides, *cfg.row(name).overrides, *QUIET, "model.pretrained=short")
        found[name] = Source(f"rows.{name}", tuple(long.recipe), pairs)
    return {name: _with_key_values(cfg, source) for name, source in found.items()}


def _with_key_values(cfg: LongContext, source: Source) -> Source:
    """`source`, whose text is mixed with documents that hold keys and values, as long as its windows."""
    recipe = source.load()
    if not isinstance(recipe, Recipe) or recipe.model.objective != "causal_lm":
        raise StudyError(f"{source.where}: model.objective must be causal_lm")
    if not cfg.key_values:
        return source
    if recipe.data.mixture:
        right = "write key_values=0, or data.source"
        raise StudyError(f"{source.where}: data.mixture is set by key_values; {right}")
    path = text.write(Path(cfg.out).absolute(), recipe.data.max_seq_len, DOCUMENTS)
    parts = [(recipe.data.source, 1 - cfg.key_values), (str(path), cfg.key_values)]
    mixture = ", ".join(f"{{source: {json.dumps(name)}, weight: {share:g}}}" for name, share in parts)
    return Source(
        source.where, source.files, (*source.pairs, "data.source=python_docs", f"data.mixture=[{mixture}]")
    )


def cells(cfg: LongContext) -> list[Cell]:
    """All cells, seed by seed, each `short` before those that begin with it."""
    scored, out, found = fingerprint(cfg, SCORED), str(Path(cfg.out) / "runs"), []
    every = sources(cfg)
    for seed in cfg.seeds:
        start = Cell(SHORT, seed, every[SHORT], None, scored, out)
        found += [start, *(Cell(name, seed, every[name], start, scored, out) for name in cfg.rows)]
    return found
