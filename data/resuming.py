"""A stream that goes on behind a checkpoint's batches.

1. Each example brings a `Place` (`cadenza.data.progress`): behind it, the process that made it would go on.
2. The loader notes the places of all processes in a `Progress`.
3. `Resumable` has Composer's hook for data sets, which saves these places and loads them.
"""

from collections.abc import Iterator
from typing import Any

from composer.utils import dist
from torch.utils.data import IterableDataset, get_worker_info

from cadenza.data.errors import DataError
from cadenza.data.progress import Place, Progress


class Resumable(IterableDataset):
    """A stream whose examples bring their `place`: (process, Place); Composer saves and loads its state.

    Without the hook Composer would load, and so tokenize, all earlier batches of the pass.

    Args:
        stream: a `TokenizedStream`.
        processes: that load batches, on each rank.
        batch_size: of each rank.
    """

    def __init__(self, stream: Any, processes: int, batch_size: int) -> None:
        self.stream, self.processes = stream, processes
        self.places: list[Place] | None = None  # where the processes begin a pass; None: at its beginning
        self.pass_, self.begun = 0, False
        self.now: Progress | None = self._fresh()  # of this pass; None: the checkpoint doesn't say
        self.layout = {
            **stream.layout,
            "the number of loading processes": processes,
            "the number of devices": dist.get_world_size(),
            "the batch size of a device": batch_size,
        }

    def _fresh(self) -> Progress:
        return Progress([Place()] * self.processes)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        process = 0 if worker is None else worker.id
        places, self.places = self.places, None  # of one pass, though a process lives longer
        read = self.stream.read(Place() if places is None else places[process])
        return ({**example, "place": (process, place)} for example, place in read)

    def begin(self) -> Progress:
        """Begin a pass: what the loader notes its batches in.

        Raises:
            DataError: the state of a checkpoint was loaded that doesn't say how far the stream was read.
        """
        if self.begun:
            self.pass_, self.now = self.pass_ + 1, self._fresh()
        if self.now is None:
            right = "call `replay(epoch, batches)` of the train loader's data set"
            raise DataError(f"data.source: the checkpoint doesn't say how far the stream was read; {right}")
        self.begun, self.places = True, list(self.now.behind)
        return self.now

    def state_dict(self, num_samples: int, from_beginning: bool) -> dict[str, Any]:
        """What a checkpoint holds: a pass, its batches so far, and where each rank goes on.

        All ranks call it. Without a sample of this epoch, the pass that was begun is over.
        """
        over = self.begun and num_samples == 0
        now = self._fresh() if over or self.now is None else self.now
        ranks = dist.all_gather_object(now.state())
        return {"pass": self.pass_ + over, "batches": now.taken, "layout": self.layout, "ranks": ranks}

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Go on where `state` says. None, or the state of data that is no stream: where `replay` will say."""
        if state is None or "ranks" not in state:
            self.now, self.begun = None, False
            return
        if other := [name for name, value in self.layout.items() if state["layout"].get(name) != value]:
            self.replay(state["pass"], state["batches"], f"another value of {', '.join(other)}")
            return
        own = state["ranks"][dist.get_global_rank()]
        places = [Place(*place) for place in own["places"]]
        self._set(state["pass"], Progress(places, own["drop"], state["batches"]))

    def replay(
        self, pass_: int, batches: int, why: str = "the checkpoint does not say how far the stream was read"
    ) -> None:
        """Make the first `batches` of a pass again, and drop them."""
        if batches and dist.get_global_rank() == 0:
            print(f"data: {batches:,} earlier batches are made again ({why})", flush=True)
        self._set(pass_, Progress([Place()] * self.processes, batches, batches))

    def _set(self, pass_: int, progress: Progress) -> None:
        self.pass_ = self.stream.passes = pass_
        self.now, self.begun = progress, False
