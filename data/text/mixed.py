"""The sources of `data.mixture`."""

from dataclasses import replace
from typing import Any

from cadenza.data.errors import DataError

MOST = 1e100  # a weight
NULLABLE = ("ids_field", "domain_tag", "domain_field")
OF_ONE_SOURCE = ("text_field", "split_text", "encoding", *NULLABLE)  # what a source may set for itself


def key_of(cfg: Any, index: int) -> str:
    """The key in the recipe that names the source of this index."""
    return "data.source" if cfg.mixture is None else f"data.mixture[{index}].source"


def parts_of(cfg: Any) -> list[tuple[Any, float]]:
    """The sources of a `TextConfig`, each as a config without a mixture, with its share of the rows.

    Raises:
        DataError: an entry that doesn't fit, or a mixture beside a source.
    """
    if cfg.mixture is None:
        return [(cfg, 1.0)]
    if not cfg.mixture:
        raise DataError("data.mixture is []; it must list sources")
    if cfg.source != "python_docs":
        right = "name one of the two: data.source=python_docs, its default, leaves the other to the mixture"
        raise DataError(f"data.source is {cfg.source!r} and data.mixture is set; {right}")
    parts = [_part(cfg, f"data.mixture[{index}]", entry) for index, entry in enumerate(cfg.mixture)]
    largest = max(weight for _, weight in parts)
    total = sum(weight / largest for _, weight in parts)
    return [(part, weight / largest / total) for part, weight in parts]


def _part(cfg: Any, where: str, entry: dict) -> tuple[Any, float]:
    known = ("source", "weight", *OF_ONE_SOURCE)
    if unknown := [key for key in entry if key not in known]:
        raise DataError(f"{where} has the unknown key {unknown[0]!r}; it may have {', '.join(known)}")
    for key in ("source", "weight"):
        if key not in entry:
            raise DataError(f"{where}.{key} is missing; an entry has a source and a weight")
    for key, value in entry.items():
        given = isinstance(value, str) or (key in NULLABLE and value is None)
        if key not in ("source", "weight") and not given:
            raise DataError(f"{where}.{key} is {value!r}; it must be text")
    values = dict(entry)
    weight, source = values.pop("weight"), values["source"]
    if not isinstance(source, str | list) or not all(isinstance(name, str) and name for name in source):
        raise DataError(f"{where}.source is {source!r}; it must name files")
    number = _weight(weight, where)
    try:
        return replace(cfg, mixture=None, **values), number
    except DataError as error:
        raise DataError(f"{where}.{str(error).removeprefix('data.')}") from error


def _weight(weight: Any, where: str) -> float:
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= MOST:
        raise DataError(f"{where}.weight is {weight!r:.80}; it must be a number above zero, at most {MOST:g}")
    return float(weight)
