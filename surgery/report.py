"""The account of a surgery: what was changed where, and the way back."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn
from torch.optim import Optimizer

from cadenza.surgery.optimizers import Memory, named_parameters, sync
from cadenza.surgery.retype import Undo


@dataclass(frozen=True)
class Change:
    """One edited module: its path in the model, and what stood there before and after."""

    path: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.path or '(root)'}: {self.before} -> {self.after}"


@dataclass
class Report:
    """What a surgery changed. `len(report)` counts the edited modules, `print(report)` lists them.

    `already` counts the modules that the same surgery had changed before.
    """

    surgery: str
    model: nn.Module = field(repr=False)
    optimizers: Sequence[Optimizer] = field(default=(), repr=False)
    changes: list[Change] = field(default_factory=list)
    already: int = 0
    _undos: list[Undo] = field(default_factory=list, repr=False)
    _memory: Memory = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.changes)

    def __bool__(self) -> bool:
        return True

    def __str__(self) -> str:
        head = f"{self.surgery}: {len(self)} modules changed"
        if self.already:
            head += f", {self.already} already were"
        return "\n".join([head, *(f"  {change}" for change in self.changes)])

    def undo(self) -> None:
        """Give the model and the optimizers back as they were before this surgery.

        Reports may be undone in any order. A second call does nothing.
        """
        before = named_parameters(self.model)
        while self._undos:
            self._undos.pop()()
        sync(self.optimizers, before, named_parameters(self.model), self._memory)
        self.changes.clear()


def describe(module: nn.Module) -> str:
    """One line for a module: a leaf's own repr, else its class and what it has claimed."""
    if not any(module.children()):
        return repr(module)
    plan = module.__dict__.get("attention_plan")
    claims = ", ".join(plan.claims()) if plan else ""
    return module._get_name() + (f" [{claims}]" if claims else "")
