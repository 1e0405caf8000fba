"""The precision of a run: what `train.precision` means on this device."""

import statistics
import time
import warnings
from pathlib import Path

import torch
from composer.utils import dist
from torch import Tensor

from cadenza.recipe.callbacks import show
from cadenza.recipe.errors import RecipeError
from cadenza.surgery.checkpoint import read

FASTER = 1.3  # bfloat16 products must be this much faster for `auto`: a step consists of other work, too
ROUNDS = 9
ROWS, COLUMNS = 256, 512  # of a product, so small that a CPU without units takes milliseconds
ON_CPU = "auto", "fp32", "amp_bf16"


def check(asked: str, cuda: bool) -> None:
    """Raise if this device can't run the precision `asked`."""
    if not cuda and asked not in ON_CPU:
        raise RecipeError(f"train.precision: {asked} can't run on a CPU; use amp_bf16, fp32 or auto")


def choose(asked: str, resumed: str | Path | None = None) -> str:
    """The precision of all ranks; a choice of `auto` is printed with its reason.

    `auto` means amp_bf16 on CUDA. On a CPU it means what the checkpoint `resumed` was trained in, else
    amp_bf16 if bfloat16 products are 1.3 times as fast as float32 here, else fp32. The first rank decides.
    """
    if asked == "fp32" or torch.cuda.is_available():
        precision = "amp_bf16" if asked == "auto" else asked
        why = "auto, on a CUDA device"
    else:
        agreed = [_on_cpu(asked, resumed) if dist.get_global_rank() == 0 else None]
        dist.broadcast_object_list(agreed)
        precision, why = agreed[0] or ("fp32", "")
    if asked == "auto":
        show(f"precision: {precision} ({why})")
    return precision


def on_cpu(asked: str) -> str:
    """The precision that `asked` means on a CPU, without a word; `auto` measures this one."""
    return asked if asked != "auto" else "amp_bf16" if speed() >= FASTER else "fp32"


def speed() -> float:
    """How many times as fast as in float32 a CPU multiplies in bfloat16.

    The median of alternated runs, in CPU time: other processes on the machine slow both down. All have one
    number of rows, since a step rounds the rows of its products (`cadenza.recipe.cpu.rows`).
    """
    ratios = [
        _seconds(_operands(torch.float32)) / _seconds(_operands(torch.bfloat16)) for _ in range(ROUNDS + 1)
    ]
    return round(statistics.median(ratios[1:]), 2)  # the first round pays for set-up


def _on_cpu(asked: str, resumed: str | Path | None) -> tuple[str, str]:
    """The precision and the reason."""
    if asked == "auto" and (kept := _saved(resumed)) is not None:
        return kept, "auto: the checkpoint's"
    ratio = speed()
    reason = f"bfloat16 products are {ratio:g}x as fast as float32 here"
    if asked == "auto":
        if ratio >= FASTER:
            return "amp_bf16", f"auto: {reason}"
        return "fp32", f"auto: {reason}; amp_bf16 takes {FASTER}x"
    if ratio < FASTER:
        warnings.warn(f"train.precision: amp_bf16 is slow on this CPU: {reason}", stacklevel=2)
    return asked, ""


def _saved(checkpoint: str | Path | None) -> str | None:
    """The precision that a local checkpoint was trained in, if a CPU can run it."""
    if checkpoint is None or "://" in str(checkpoint):
        return None
    precision = read(checkpoint, trusted=True).get("metadata", {}).get("precision")
    return precision if precision in ON_CPU else None


def _operands(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return torch.ones(ROWS, COLUMNS, dtype=dtype), torch.ones(COLUMNS, COLUMNS, dtype=dtype)


def _seconds(operands: tuple[Tensor, Tensor]) -> float:
    start = time.process_time()
    for _ in range(4):
        torch.mm(*operands)
    return time.process_time() - start
