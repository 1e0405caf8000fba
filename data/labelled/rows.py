"""One or two texts and a label from each row, before the classes have numbers."""

from typing import Any, NamedTuple

from cadenza.data.errors import BadRow, DataError
from cadenza.data.labelled.config import LabelledConfig
from cadenza.data.labelled.values import class_of, number_of
from cadenza.data.text.files.fields import text_in, value_of


class Row(NamedTuple):
    """An example whose class is a name still; `place` is such as `movies.csv line 5`."""

    text: str
    pair: str | None
    label: str | float
    place: str


def fields_of(cfg: LabelledConfig) -> dict[str, str]:
    """The fields that are needed, by the option that names each."""
    options = ("text_field", "pair_field", "label_field")
    return {option: getattr(cfg, option) for option in options if getattr(cfg, option) is not None}


def row_or_bad(row: Any, cfg: LabelledConfig, names: list[str] | None, where: str) -> Row | DataError:
    """What a row holds, or its error.

    Args:
        names: the names of the classes if labels are their numbers; -1 then means that there is no label.
        where: of the row.
    """
    try:
        text = text_in("text_field", cfg.text_field, row, where)
        pair = None if cfg.pair_field is None else text_in("pair_field", cfg.pair_field, row, where)
        if not text.strip() and not (pair or "").strip():
            raise BadRow(f"data.text_field: {cfg.text_field!r} of {where} is empty")
        value = value_of("label_field", cfg.label_field, row, where)
        what = f"data.label_field: {cfg.label_field!r} of {where}"
        label = class_of(value, names, what) if cfg.classes else number_of(value, names, what)
        return Row(text, pair, label, where)
    except DataError as error:
        return error
