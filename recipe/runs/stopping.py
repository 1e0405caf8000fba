"""Ctrl-C, or a batch system's SIGTERM, ends a run in one line that names the checkpoint to go on from."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cadenza.recipe import checkpoints
from cadenza.recipe.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stops_in_a_line(folder: Path) -> Iterator[None]:
    """Turn the first signal into `Stopped`, whose message names the newest whole checkpoint in `folder`.

    Composer's launcher sends SIGTERM right after the terminal's SIGINT. So signals after the first do nothing
    here, and after a stop SIGTERM does nothing until the process has ended, which it is about to.
    """
    received: list[int] = []

    def stop(number: int, frame: Any) -> None:
        received.append(number)
        if len(received) == 1:
            raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()
    heard = [each for each in SIGNALS if main and signal.getsignal(each) != signal.SIG_IGN]  # as nohup does
    before = {each: signal.signal(each, stop) for each in heard}
    try:
        yield
    except KeyboardInterrupt as error:
        raise Stopped(_message(folder), 128 + (received or [signal.SIGINT])[0]) from error
    finally:
        for each, handler in before.items():
            if each == signal.SIGINT or not received:
                signal.signal(each, handler)


def _message(folder: Path) -> str:
    good = checkpoints.latest(folder)
    if good is None:
        return "no checkpoint was saved; train.save_interval says when"
    return f"the last checkpoint is {good}; train.autoresume=true resumes from it"
