"""The ledger: on each module, which surgeries were done on it."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from torch import nn

from cadenza.surgery.retype import Undo


class Stage(IntEnum):
    """The canonical order of surgeries; within a stage they commute."""

    STRUCTURE = 1  # adds, removes or reshapes parameters
    ATTENTION = 2  # claims a field of the attention plan
    PRECISION = 3  # the same weights, computed with in another dtype
    QUANTIZE = 4  # what is computed with is no longer the trained weight


@dataclass(frozen=True)
class Entry:
    """A line of a ledger: a surgery's stage and repr, and whether the stock model computes the same."""

    stage: Stage
    surgery: str
    keeps_outputs: bool


def ledger(module: nn.Module) -> dict[str, Entry]:
    """The surgeries done on this very module, by name."""
    return module.__dict__.get("surgeries", {})


def enter(module: Any, name: str, entry: Entry) -> Undo:
    """Write `entry` under `name`; the result strikes it out."""
    module.surgeries = {**ledger(module), name: entry}

    def undo() -> None:
        left = {k: v for k, v in ledger(module).items() if k != name}
        if left:
            module.surgeries = left
        else:
            del module.surgeries

    return undo
