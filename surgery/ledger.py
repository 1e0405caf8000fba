"""The ledger of a module: which surgeries were done on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from cadenza.surgery.retype import Stage, Undo


@dataclass(frozen=True)
class Entry:
    """One surgery in a ledger.

    Args:
        stage: the stage of the surgery.
        name: its class name.
        options: its options, plain values by name.
        keeps_outputs: whether stock code computes the same from the weights.
    """

    stage: Stage
    name: str
    options: Mapping[str, Any]
    keeps_outputs: bool

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in self.options.items())})"


def ledger(module: nn.Module) -> dict[str, Entry]:
    """The surgeries done on `module` itself, by name."""
    return module.__dict__.get("surgeries", {})


def enter(module: Any, entry: Entry) -> Undo:
    """Add `entry` to the ledger of `module`."""
    module.surgeries = {**ledger(module), entry.name: entry}
    return lambda: leave(module, entry.name)


def leave(module: Any, name: str) -> None:
    """Remove the surgery `name` from the ledger of `module`, if it's there."""
    rest = {other: entry for other, entry in ledger(module).items() if other != name}
    if rest:
        module.surgeries = rest
    else:
        module.__dict__.pop("surgeries", None)


def history(model: nn.Module) -> list[Entry]:
    """The surgeries done on `model`, each once, in an order in which they can be done again.

    The order is by stage, then by name. Within a stage surgeries commute.
    """
    found = {name: entry for module in model.modules() for name, entry in ledger(module).items()}
    return sorted(found.values(), key=lambda entry: (entry.stage, entry.name))


def quantized_within(module: nn.Module, path: str) -> str | None:
    """Path and surgery of a quantized layer in `module`, whose own path is `path`; None if there is none."""
    entries = ((p, e) for p, m in module.named_modules(prefix=path) for e in ledger(m).values())
    return next((f"{p}: {e}" for p, e in entries if e.stage == Stage.QUANTIZE), None)
