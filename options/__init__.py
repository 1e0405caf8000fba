"""Options that declare themselves: the fields of a dataclass, with their meaning and the values that fit."""

from cadenza.options.check import check, problem, shown
from cadenza.options.option import Option, declared, option
from cadenza.options.times import Times
from cadenza.options.valid import Choice, Range, Text, Valid

__all__ = [
    "Choice",
    "Option",
    "Range",
    "Text",
    "Times",
    "Valid",
    "check",
    "declared",
    "option",
    "problem",
    "shown",
]
