"""The process of one job: python -m cadenza.studies.running.child FOLDER, as `Process` starts it.

FOLDER/job holds two pickles: sys.path and the name of the parent's main module, then a function and its
arguments. FOLDER/result gets a pickle: whether the function returned, and its result or its error
in one line. Nothing heavy is imported before the function's module is.
"""

import importlib
import os
import pickle
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any


def main(folder: Path) -> None:
    """Call the job's function and write its result."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        found = (True, _called(folder / "job"))
    except Exception as error:
        traceback.print_exc()
        found = (False, line_of(error))
    (folder / "result").write_bytes(pickle.dumps(found))


def _called(job: Path) -> Any:
    with job.open("rb") as file:
        sys.path[:], parent_main = pickle.load(file)
        if parent_main:  # its classes and functions are pickled as those of `__main__`
            sys.modules["__main__"] = importlib.import_module(parent_main)
        call, arguments = pickle.load(file)
    return call(*arguments)


def line_of(error: Exception) -> str:
    """The message of `error`; of a fault of the program, its class as well."""
    text = " ".join(str(error).split())
    return text if type(error).__module__.startswith("cadenza.") else f"{type(error).__name__}: {text}"


def _end_with_parent() -> None:
    """Wait until the parent, which holds the other end of stdin, is gone; then end all of this group."""
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
