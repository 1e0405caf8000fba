"""The cells of the study, where their rows stand, and which are still to be computed."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from cadenza.studies.ptq_sweep.models import Subject, simulated
from cadenza.studies.ptq_sweep.settings import PLAIN, Sweep
from cadenza.studies.report import Row
from cadenza.studies.running import cells


class Prediction(NamedTuple):
    """A format's measures on a text."""

    model: str
    format: str
    text: str


class Sampled(NamedTuple):
    """Texts that are generated with one seed under one temperature and top_k."""

    model: str
    format: str
    text: str
    temperature: float
    top_k: int
    seed: int


class Generation(NamedTuple):
    """The measures of sampled texts, cut at one length."""

    model: str
    format: str
    text: str
    temperature: float
    top_k: int
    seed: int
    max_new_tokens: int


class Speed(NamedTuple):
    """A format's speeds at one batch size."""

    model: str
    format: str
    batch: int


Cell = Prediction | Generation | Speed


class Table:
    """The rows of cells of one kind, in a CSV file of the study's folder."""

    def __init__(self, folder: str, kind: type[Cell]) -> None:
        self.path, self.kind = Path(folder) / f"{kind.__name__.lower()}.csv", kind

    def rows(self, wanted: dict[Any, str]) -> list[Row]:
        """The rows of the cells in `wanted`, cell -> settings, that are done; in the order of `wanted`."""
        held = {self._key(row, row["settings"]): row for row in cells.done(self.path)}
        keys = (self._key(cell._asdict(), settings) for cell, settings in wanted.items())
        return [held[key] for key in keys if key in held]

    def missing(self, wanted: dict[Any, str]) -> dict[Any, str]:
        """Those of `wanted` that have no row."""
        held = {self._key(row, row["settings"]) for row in cells.done(self.path)}
        return {c: s for c, s in wanted.items() if self._key(c._asdict(), s) not in held}

    def append(self, cell: Any, settings: str, found: Row) -> None:
        """Write the row of a cell; lists and mappings become JSON."""
        values = {k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in found.items()}
        cells.append(self.path, {**cell._asdict(), **values, "settings": settings})

    def _key(self, row: Row, settings: str) -> tuple[str, ...]:
        return (*(str(row[name]) for name in self.kind._fields), settings)


def predictions(cfg: Sweep, subject: Subject) -> dict[Prediction, str]:
    """All cells of a model with their settings."""
    return {
        Prediction(subject.label, form, text): subject.settings(text)
        for form in ordered(cfg)
        for text in cfg.texts
    }


def generations(cfg: Sweep, subject: Subject) -> dict[Generation, str]:
    """All cells of a model with their settings."""
    settings = {text: subject.settings(text, cfg.prompts, cfg.prompt) for text in cfg.texts}
    return {
        Generation(subject.label, form, text, temperature, k, seed, new): settings[text]
        for form in ordered(cfg)
        for text in cfg.texts
        for seed in cfg.seeds
        for temperature in cfg.temperatures
        for k in cfg.top_k
        for new in sorted(cfg.max_new_tokens)
    }


def speeds(cfg: Sweep, subject: Subject) -> dict[Speed, str]:
    """All cells of a model with their settings; formats without a kernel have none."""
    made_of = cfg.prompt, cfg.rounds, cfg.decode_tokens, cfg.device_map
    settings = subject.settings(cfg.texts[0], *made_of)
    forms = [form for form in ordered(cfg) if form != PLAIN and not simulated(form)]
    return {Speed(subject.label, form, batch): settings for form in forms for batch in cfg.batch_sizes}


def ordered(cfg: Sweep) -> list[str]:
    """The formats, the unquantized model first."""
    return [PLAIN, *(form for form in cfg.formats if form != PLAIN)]


def sampled(missing: dict[Generation, str]) -> dict[Sampled, tuple[str, list[Generation]]]:
    """The texts that the cells in `missing` are about: settings, and the cells of each."""
    found: dict[Sampled, tuple[str, list[Generation]]] = {}
    for cell, settings in missing.items():
        found.setdefault(Sampled(*cell[:-1]), (settings, []))[1].append(cell)
    return found


def ids_file(cfg: Sweep, cell: Sampled, settings: str) -> Path:
    """Where sampled token ids stand until they are measured, and after."""
    digest = hashlib.sha256(json.dumps([*cell, settings, max(cfg.max_new_tokens)]).encode()).hexdigest()
    return Path(cfg.out) / "generated" / f"{digest[:16]}.json"


def reference_file(cfg: Sweep, cell: Prediction, settings: str) -> Path:
    """Where the unquantized model's log-probabilities on the text of `cell` stand while they are needed."""
    digest = hashlib.sha256(json.dumps([cell.model, cell.text, settings]).encode()).hexdigest()
    return Path(cfg.out) / f"reference_{digest[:16]}.npy"
