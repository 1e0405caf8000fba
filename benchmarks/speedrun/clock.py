"""The clock of a run: seconds of training, and nothing else.

It runs from the first epoch's start, before the first batch is loaded, to the end of training, and stands
while the model is evaluated. So it counts loading, masking, compilation, schedules and the loop's own work.
"""

import time
from collections.abc import Callable

import torch
from composer.core import Callback, State
from composer.loggers import Logger
from tqdm.auto import tqdm


class Stopwatch:
    """Seconds that pass between `start` and `stop`, over all such times.

    Args:
        now: what tells the time.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.now, self.total, self.since = now, 0.0, None

    def start(self) -> None:
        """Go on; nothing if it runs."""
        if self.since is None:
            self.since = self.now()

    def stop(self) -> None:
        """Stand; nothing if it stands."""
        if self.since is not None:
            self.total, self.since = self.total + self.now() - self.since, None


class Clock(Callback):
    """Counts seconds of training by the wall and by this process's CPU, and notes each evaluation.

    CPU seconds are those of all threads, without processes that load batches. Where other programs share the
    cores, they vary less than wall time.
    """

    def __init__(self) -> None:
        self.wall, self.cpu = Stopwatch(time.perf_counter), Stopwatch(time.process_time)
        self.curve: list[dict[str, float]] = []

    def epoch_start(self, state: State, logger: Logger) -> None:
        self._both(Stopwatch.start)

    def eval_before_all(self, state: State, logger: Logger) -> None:
        self._both(Stopwatch.stop)

    def eval_after_all(self, state: State, logger: Logger) -> None:
        self._note(state)
        if state.timestamp < state.max_duration:
            self._both(Stopwatch.start)

    def fit_end(self, state: State, logger: Logger) -> None:
        self._both(Stopwatch.stop)

    def _both(self, act: Callable[[Stopwatch], None]) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        act(self.wall)
        act(self.cpu)

    def _note(self, state: State) -> None:
        loss = float(state.eval_metrics["eval"]["LanguageCrossEntropy"].compute())
        row = {"batch": state.timestamp.batch.value, "seconds": round(self.wall.total, 3), "loss": loss}
        self.curve.append(row)
        tqdm.write(f"batch {row['batch']:,}, {row['seconds']:.1f} s: evaluation loss {loss:.4f}")
