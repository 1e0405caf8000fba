"""What `check_resume` looks at while a trainer trains."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cadenza.checks.snapshots import Snapshot, flat


@dataclass
class Watch:
    """A look at one training: its losses, and its state at two moments.

    Args:
        start: the number of the batch, counted from 1, before which the state is kept.
        end: the number of the batch after which the state is kept, and the training ends.
    """

    start: int
    end: int
    first: int | None = None
    last: int = 0
    losses: dict[int, Snapshot] = field(default_factory=dict)
    started: Snapshot = field(default_factory=dict)
    ended: Snapshot = field(default_factory=dict)

    def before(self, batch: int, state: Callable[[], Snapshot], data: Any = None) -> None:
        """Before the forward of batch number `batch`."""
        self.first = batch if self.first is None else self.first
        if batch == self.start:
            self.started = {f"batch {name}": value for name, value in flat(data)} | state()

    def after(self, batch: int, loss: Any, state: Callable[[], Snapshot]) -> bool:
        """After the step of batch number `batch`; whether the training ends here."""
        self.last = batch
        self.losses[batch] = dict(flat(loss, f"loss of batch {batch}"))
        if batch == self.end:
            self.ended = state()
        return batch >= self.end

    def losses_from(self, first: int, last: int | None = None) -> Snapshot:
        """The losses of the batches from `first` to `last`, or to the end."""
        wanted = [batch for batch in self.losses if first <= batch and (last is None or batch <= last)]
        return {name: value for batch in wanted for name, value in self.losses[batch].items()}
