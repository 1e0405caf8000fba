"""Records and candidates: a folder with record.yaml and recipe.yaml each."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rules import refuse
from tracks import ROOT, Track

from cadenza.recipe.errors import nearest
from cadenza.recipe.schema import Recipe
from cadenza.studies.checks import StudyError
from cadenza.studies.running.source import Source

KEYS = ("title", "changed", "sources")
NUMBERED = re.compile(r"\d\d_\w+")


@dataclass(frozen=True)
class Record:
    """A record, or a candidate for one.

    Its recipe is made of the files `sources` in record.yaml, which lie in the checkout, of its own
    recipe.yaml, and of `pairs`.

    Args:
        pairs: key=value pairs after the files.
    """

    folder: Path
    track: Track
    pairs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Of record.yaml: `title`, `changed` (against the record before) and `sources`.

        Raises:
            StudyError: no such file, or another key, or one that is missing.
        """
        path = self.folder / "record.yaml"
        if not path.is_file():
            raise StudyError(f"{self.folder}: there is no record.yaml in it")
        found: Any = OmegaConf.to_container(OmegaConf.load(path))
        if not isinstance(found, dict) or set(found) != set(KEYS):
            raise StudyError(f"{path}: its keys must be {', '.join(KEYS)}")
        return found

    @cached_property
    def source(self) -> Source:
        """What its recipe is loaded from."""
        files = [*(str(ROOT / file) for file in self.facts["sources"]), str(self.folder / "recipe.yaml")]
        return Source(self.name, tuple(files), (*self.pairs, "loggers={}"))

    def recipe(self, *more: str) -> Recipe:
        """Its recipe, with `more` pairs after the others.

        Raises:
            StudyError: it can't be loaded, or breaks a rule of the track.
        """
        found = self.source.load(*more)
        refuse(self.name, found, self.track)
        return found


def numbered(folder: Path) -> list[Path]:
    """The records or candidates in `folder`, by their numbers."""
    return sorted(path for path in folder.glob("*/") if NUMBERED.fullmatch(path.name))


def found(name: str | None, track: Track, pairs: Sequence[str] = ()) -> Record:
    """The record or candidate of this name, or in the folder `name`; None: the last record.

    Raises:
        StudyError: there is none.
    """
    every = [*numbered(track.tried), *numbered(track.records)]
    if name is None:
        if not numbered(track.records):
            raise StudyError(f"track {track.name} has no records yet")
        return Record(numbered(track.records)[-1], track, tuple(pairs))
    folder = next((path for path in every if path.name == name), Path(name))
    if not folder.is_dir():
        raise StudyError(f"there is no record {name}; {nearest(name, [path.name for path in every])}")
    return Record(folder.resolve(), track, tuple(pairs))


def before(record: Record) -> Record | None:
    """The record that `record` is to beat: the last one before it; None if it is the first."""
    earlier = [path for path in numbered(record.track.records) if path.name < record.name]
    if record.folder.parent != record.track.records:  # a candidate elsewhere
        earlier = numbered(record.track.records)
    return Record(earlier[-1], record.track) if earlier else None
