"""The account of a surgery: what was changed where, and the way back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import nn
from torch.optim import Optimizer

from cadenza.surgery.errors import SurgeryError
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

    `already` counts the modules that the same surgery had changed before; `skipped` says why modules that
    look like its own were left as they are.
    """

    surgery: str
    model: nn.Module = field(repr=False)
    optimizers: Sequence[Optimizer] = field(default=(), repr=False)
    changes: list[Change] = field(default_factory=list)
    already: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _undos: list[Undo] = field(default_factory=list, repr=False)
    _memory: Memory = field(default_factory=dict, repr=False)
    _sealed: str = field(default="", repr=False)
    _check_undo: Callable[[], None] = field(default=lambda: None, repr=False)

    def __len__(self) -> int:
        return len(self.changes)

    def __bool__(self) -> bool:
        return True

    def __str__(self) -> str:
        head = f"{self.surgery}: {len(self)} modules changed"
        if self.already:
            head += f", {self.already} already were"
        skipped = (f"left as it is: {path}, {why}" for path, why in self.skipped.items())
        return "\n  ".join(["; ".join([head, *self.notes]), *map(str, self.changes), *skipped])

    def excuses(self) -> str:
        """The first of `skipped`, for the message of an error; empty where there is none."""
        if not self.skipped:
            return ""
        path, why = next(iter(self.skipped.items()))
        more = f", and {len(self.skipped) - 1} more" if len(self.skipped) > 1 else ""
        return f"; left as it is: {path}, {why}{more}"

    def seal(self, why: str) -> None:
        """Free what was kept for the way back."""
        self._undos, self._memory, self._sealed = [], {}, why

    def undo(self) -> None:
        """Give the model and the optimizers back as they were before this surgery.

        Reports may be undone in any order. A second call does nothing.

        Raises:
            SurgeryError: the surgery kept no way back.
            OrderError: quantized weights rest on it.
        """
        if self._sealed:
            raise SurgeryError(f"{self.surgery} can't be undone: {self._sealed}")
        self._check_undo()
        self._take_back()

    def _take_back(self) -> None:
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
