"""The report of a surgery: what was changed, where, and how to undo it."""

from dataclasses import dataclass, field

from torch import nn

from cadenza.surgery.errors import OrderError, SurgeryError
from cadenza.surgery.ledger import Entry, quantized_within
from cadenza.surgery.retype import Stage
from cadenza.surgery.undos import Undos


@dataclass(frozen=True)
class Change:
    """One edited module: its path in the model, and its text before and after the edit."""

    path: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.path or '(root)'}: {self.before} -> {self.after}"


@dataclass
class Report:
    """What a surgery changed: `len(report)` counts the edited modules, `print(report)` lists them.

    Args:
        entry: the surgery.
        undos: its undos.
        changes: the edited modules.
        already: the number of modules that the same surgery had edited before.
        skipped: path -> reason, for modules that were left as they are though the surgery edits such modules.
        notes: further facts for the first line.
        irreversible: the reason why the surgery can't be undone; empty if it can.
    """

    entry: Entry
    undos: Undos = field(repr=False)
    changes: list[Change] = field(default_factory=list)
    already: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    irreversible: str = field(default="", repr=False)

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

    @property
    def surgery(self) -> str:
        """The surgery with its options, as a call."""
        return str(self.entry)

    @property
    def model(self) -> nn.Module:
        """The model that was operated on."""
        return self.undos.model

    def first_skipped(self) -> str:
        """The first entry of `skipped` and the number of others, for an error message; empty if none."""
        if not self.skipped:
            return ""
        path, why = next(iter(self.skipped.items()))
        more = f", and {len(self.skipped) - 1} more" if len(self.skipped) > 1 else ""
        return f"; left as it is: {path}, {why}{more}"

    def undo(self) -> None:
        """Restore the structure of the model, and the optimizers, to what they were before this surgery.

        Parameters that the surgery replaced or removed come back with the values that they had then: training
        in between is lost for them (`glu`: the feed-forwards; `alibi`: the position embeddings). All other
        parameters keep what was trained, and so do the words of `vocab_padding`. What comes back gets the
        dtype and the device that the model has now. Reports may be undone in any order. A second call does
        nothing.

        Raises:
            SurgeryError: the surgery is irreversible, or the model was sharded, parametrized or hooked since.
            OrderError: it changed the structure of layers that were quantized later.
        """
        if self.irreversible:
            raise SurgeryError(f"{self.surgery} can't be undone: {self.irreversible}")
        modules = dict(self.model.named_modules())
        changed = [change.path for change in self.changes if change.path in modules]  # the others were moved
        for path in changed if self.entry.stage == Stage.STRUCTURE else ():
            if found := quantized_within(modules[path], path):
                raise OrderError(f"{found} is in place; undo it before {self.surgery}")
        self.undos.undo()
        self.changes.clear()


def describe(module: nn.Module) -> str:
    """The text of a report for `module`: its repr if it has no children, else its class."""
    return module._get_name() if any(module.children()) else repr(module)
