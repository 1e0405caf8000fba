"""The sources of `data.mixture`."""

import math
from dataclasses import replace
from typing import Any

from cadenza.data.errors import DataError

OF_ONE_SOURCE = ("text_field", "ids_field", "split_text", "encoding")  # what a source may set for itself


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
        raise DataError(f"data.source is {cfg.source!r} and data.mixture is set; name one of the two")
    parts = [_part(cfg, f"data.mixture[{index}]", entry) for index, entry in enumerate(cfg.mixture)]
    total = sum(weight for _, weight in parts)
    return [(part, weight / total) for part, weight in parts]


def _part(cfg: Any, where: str, entry: dict) -> tuple[Any, float]:
    known = ("source", "weight", *OF_ONE_SOURCE)
    if unknown := [key for key in entry if key not in known]:
        raise DataError(f"{where} has the unknown key {unknown[0]!r}; it may have {', '.join(known)}")
    values = {"weight": 0, **entry}
    weight = values.pop("weight")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
        raise DataError(f"{where}.weight is {weight!r}; it must be a number above zero")
    if not isinstance(values.get("source"), str | list):
        raise DataError(f"{where}.source is {values.get('source')!r}; it must name files")
    return replace(cfg, mixture=None, **values), float(weight)
