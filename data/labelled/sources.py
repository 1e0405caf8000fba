"""The rows of files, and those of a split of a data set on the Hub."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cadenza.data import hub
from cadenza.data.errors import DataError
from cadenza.data.labelled.config import LabelledConfig
from cadenza.data.labelled.rows import Row, fields_of, row_or_bad
from cadenza.data.text.bad_rows import kept
from cadenza.data.text.files.documents import rows_of
from cadenza.data.text.files.fields import column_of
from cadenza.data.text.files.paths import each_once, is_local, paths_of
from cadenza.data.text.files.place import Reading


@dataclass
class Part:
    """Rows for one purpose.

    Args:
        key: the key of the recipe that names them.
        names: the classes that the data set itself names, in its order; None: it doesn't.
    """

    key: str
    rows: list[Row]
    names: list[str] | None = None


def hub_name(cfg: LabelledConfig) -> str | None:
    """The name of the data set on the Hub; None: the source is local.

    Raises:
        DataError: a list with a data set of the Hub among others.
    """
    others = [name for name in cfg.names if not is_local(name)]
    if others and len(cfg.names) > 1:
        right = "a data set on the Hub is named alone"
        raise DataError(f"data.source: {others[0]} is neither a file, nor a folder, nor a glob; {right}")
    return others[0] if others else None


def of_files(source: str | list[str], cfg: LabelledConfig, key: str) -> Part:
    """The rows of local files.

    Raises:
        DataError: what can't be read, or no row at all.
    """
    names = [source] if isinstance(source, str) else source
    for name in names:
        if not is_local(name):
            raise DataError(f"{key}: {name} is neither a file, nor a folder, nor a glob")
    reading = Reading(cfg.encoding, fields_of(cfg), lambda row, where: row_or_bad(row, cfg, None, where))
    found = (row for path in _paths(names, key) for row in rows_of(path, reading, key))
    return Part(key, _kept(found, cfg, f"{key}: {', '.join(names)}"))


def of_hub(name: str, split: str, cfg: LabelledConfig, key: str) -> Part:
    """The rows of a split, which `key` names, downloaded by `datasets`; errors as in `of_files`."""
    from datasets import load_dataset

    advice = f"check the name, data.subset, {key} and the network, or set data.source to local files"
    with hub.reading(name, advice):
        rows: Any = load_dataset(name, cfg.subset, split=split)
    columns = [column_of(option, field, rows.column_names, name) for option, field in fields_of(cfg).items()]
    names = _names(rows.features, cfg.label_field)
    rows = rows.select_columns(sorted(set(columns)))
    where = f"{name} {f'{cfg.subset} ' if cfg.subset else ''}{split}"
    found = (row_or_bad(row, cfg, names, f"{where} row {number}") for number, row in enumerate(rows, 1))
    return Part(key, _kept(found, cfg, f"{key}: {where}"), names)


def refuse_shared(cfg: LabelledConfig) -> None:
    """Raise `DataError` if a file is read to train on and to evaluate."""
    if cfg.eval_source is None or hub_name(cfg):
        return
    training = {os.path.realpath(path) for path in _paths(cfg.names, "data.source")}
    names = [cfg.eval_source] if isinstance(cfg.eval_source, str) else cfg.eval_source
    for path in _paths(names, "data.eval_source"):
        if os.path.realpath(path) in training:
            raise DataError(f"data.eval_source: {path} is a file of data.source, too; take it out of one")


def _paths(names: list[str], key: str) -> list[str]:
    return each_once(names, key, lambda name: paths_of(name, key))


def _kept(rows: Iterator[Any], cfg: LabelledConfig, where: str) -> list[Row]:
    found = list(kept(rows, cfg.on_bad_row == "skip", where))
    if not found:
        raise DataError(f"{where} holds no example")
    return found


def _names(features: Any, field: str) -> list[str] | None:
    """The names of a `ClassLabel`, which `field` is or, for `meta.label`, `label` within `meta`."""
    found = features.get(field)
    if found is None:
        found = features
        for name in field.split("."):
            found = found.get(name) if isinstance(found, dict) else None
    names = getattr(found, "names", None)
    return list(names) if names else None
