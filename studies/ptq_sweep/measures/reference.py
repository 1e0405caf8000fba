"""The unquantized model's log-probabilities on a text, kept on disk.

So the unquantized model and a quantized one needn't stand on a device at the same time. They are kept in
float32: bfloat16 would change a log-probability of -10 by up to 0.03 nats, as much as int8 does.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cadenza.studies.checks import StudyError

SPARE = 2**28  # bytes that stay free on the disk


@torch.no_grad()
def log_probabilities(model: Any, window: Tensor) -> Tensor:
    """In float32, (length - 1, vocabulary): of the tokens after the first of `window` (length,)."""
    logits = model(window[None].to(model.device)).logits[0, :-1]
    return logits.float().log_softmax(-1)


def bytes_needed(windows: Tensor, vocabulary: int) -> int:
    """The size of the file for `windows` (rows, length)."""
    return len(windows) * (windows.shape[1] - 1) * vocabulary * 4


def write(path: Path, model: Any, windows: Tensor) -> None:
    """Write the log-probabilities of `windows` (rows, length); the file appears when it is complete.

    Raises:
        StudyError: the disk hasn't enough room.
    """
    part, opened = path.with_suffix(".part"), None
    for index, window in enumerate(windows):
        found = log_probabilities(model, window).cpu().numpy()
        if opened is None:
            needed = bytes_needed(windows, found.shape[1])
            part.unlink(missing_ok=True)
            _refuse_full(path.parent, needed)
            shape = (len(windows), *found.shape)
            opened = np.lib.format.open_memmap(part, "w+", np.float32, shape)
        opened[index] = found
    opened.flush()  # pyright: ignore[reportOptionalMemberAccess] - there is a window at least
    part.rename(path)


def _refuse_full(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE:
        sizes = (
            f"{needed / 1e9:.1f} GB for the unquantized model's log-probabilities, and has {free / 1e9:.1f}"
        )
        raise StudyError(f"out: {folder} needs {sizes}; take fewer windows or another folder")


def read(path: Path) -> Any:
    """A view (rows, length - 1, vocabulary) of the file, not in memory."""
    return np.load(path, mmap_mode="r")
