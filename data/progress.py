"""How far a stream was read, by the batches that came of it."""

from typing import Any, NamedTuple


class Place(NamedTuple):
    """Behind an example of a stream: what is passed by to go on there.

    Whole documents; of the next one, so many units (sequences or tokens); then rows that are made of what
    follows. `examples` are those of the pass so far, of this process. `ahead` is what `Shares`
    (`cadenza.data.text.marks.upsampling`) holds before that document.
    """

    document: int = 0
    unit: int = 0
    rows: int = 0
    examples: int = 0
    ahead: tuple[tuple[str, int], ...] = ()


def placed(examples: list[dict[str, Any]]) -> dict[str, Any]:
    """The `place` that a batch brings to the main process: its last example's, if it has one."""
    return {"place": examples[-1]["place"]} if "place" in examples[-1] else {}


class Progress:
    """How far the processes of a rank have read in a pass; a rank without workers has one process.

    The processes take turns, and those that have read their part are left out. So the next batch comes from
    the right process if all begin a round together: those that have had a batch of a round that isn't over go
    back before it, and make it again.

    Args:
        places: where each process began.
        drop: the first batches that are made again, and dropped.
        taken: the batches of the pass that were trained on before.
    """

    def __init__(self, places: list[Place], drop: int = 0, taken: int = 0) -> None:
        self.drop, self.earlier = drop, taken
        self.before, self.behind = list(places), list(places)  # the last batch of each process
        self.batches, self.last = [0] * len(places), len(places) - 1

    def note(self, process: int, place: Place) -> None:
        """A batch came from `process`; `place` is that of its last example."""
        self.before[process], self.behind[process] = self.behind[process], place
        self.batches[process] += 1
        self.last = process

    @property
    def taken(self) -> int:
        """The batches of the pass that were given to train on."""
        return self.earlier + max(sum(self.batches) - self.drop, 0)

    def state(self) -> dict[str, Any]:
        """Where each process goes on, and how many batches are then made again."""
        if not any(self.batches):
            return {"places": list(map(list, self.behind)), "drop": self.drop}
        again = self._again()
        places = [self.before[p] if p in again else self.behind[p] for p in range(len(self.behind))]
        return {"places": list(map(list, places)), "drop": len(again)}

    def _again(self) -> list[int]:
        """The processes that have had a batch of a round that isn't over."""
        if self.last == len(self.behind) - 1:
            return []
        return [p for p in range(self.last + 1) if self.batches[p] == self.batches[self.last]]
