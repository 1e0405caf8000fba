"""The value of a label: the name of a class, or a number."""

import math
from decimal import Decimal
from typing import Any

import numpy as np

from cadenza.data.errors import BadRow, DataError

LARGEST = float(np.finfo(np.float32).max)


def class_of(value: Any, names: list[str] | None, what: str) -> str:
    """The name of the class that `value` means.

    Args:
        names: the names of the classes if labels are their numbers.
        what: how an error message begins: the option, the field and the row.

    Raises:
        BadRow: there is no label, or none that can name a class.
        DataError: a number with a fraction.
    """
    _refuse_missing(value, names, what)
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, float | Decimal):
        value = _integer(value, what)
    if names is not None and not isinstance(value, bool) and isinstance(value, int):
        if not 0 <= value < len(names):
            raise BadRow(f"{what} is {value}; the data set names the classes 0 to {len(names) - 1}")
        return names[value]
    if isinstance(value, bool | int):
        return str(value)
    raise BadRow(f"{what} holds {type(value).__name__}; a class is a text, an integer or a boolean")


def number_of(value: Any, names: list[str] | None, what: str) -> float:
    """The number that `value` is or, of a text, says; arguments as in `class_of`.

    Raises:
        BadRow: there is no number, or one that isn't finite in float32.
    """
    _refuse_missing(value, names, what)
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise BadRow(f"{what} holds {type(value).__name__}, no number")
    try:
        number = float(value)
    except ValueError as error:
        raise BadRow(f"{what} is {str(value)[:40]!r}, no number") from error
    except OverflowError:
        number = math.inf
    if abs(number) > LARGEST or math.isnan(number):
        raise BadRow(f"{what} is {str(value)[:40]}; it must be a finite number")
    return number


def _refuse_missing(value: Any, names: list[str] | None, what: str) -> None:
    if value is None or (isinstance(value, float | Decimal) and math.isnan(value)):
        raise BadRow(f"{what} has no label ({'null' if value is None else 'NaN'})")
    if isinstance(value, str) and not value.strip():
        raise BadRow(f"{what} has no label (an empty text)")
    if names is not None and value == -1:
        raise BadRow(f"{what} has no label (-1)")


def _integer(value: float | Decimal, what: str) -> int:
    if not math.isfinite(value):
        raise BadRow(f"{what} is {value}, which names no class")
    if value != int(value):
        right = "set data.target=number to predict numbers"
        raise DataError(f"{what} is {value}, a number with a fraction, which names no class; {right}")
    return int(value)
