"""What a run says and refuses on its way: what it resumes from, and a loss that is no number."""

import math
from pathlib import Path
from typing import Any

import torch
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist

from cadenza.recipe.errors import TrainingError
from cadenza.surgery.resume import guard

SHOWN = 8


class Resuming(Callback):
    """Refuses checkpoints that don't fit, and says where a run goes on."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def init(self, state: State, logger: Logger) -> None:
        guard(state)

    def after_load(self, state: State, logger: Logger) -> None:
        if state.timestamp.batch.value == 0 or dist.get_global_rank() != 0:
            return
        print(f"resumed after batch {state.timestamp.batch.value}: {state.load_path}", flush=True)
        if state.rank_zero_seed != self.seed:
            theirs = f"seed {state.rank_zero_seed} in the checkpoint"
            print(
                f"{theirs}, {self.seed} here: order and masks of the data are those of {self.seed}",
                flush=True,
            )


class StopsAtNaN(Callback):
    """Ends training at a loss that isn't finite, before a checkpoint is saved, and keeps the batch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def batch_end(self, state: State, logger: Logger) -> None:
        loss = state.total_loss_dict.get("loss/train/total", 0.0)
        if math.isfinite(loss):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        batch, now = self.folder / f"bad-batch-rank{dist.get_global_rank()}.pt", state.timestamp
        torch.save(state.batch, batch)
        raise TrainingError(
            f"the loss is {loss} at batch {now.batch.value} (epoch {now.epoch.value}, its batch "
            f"{now.batch_in_epoch.value}){_draws(state.batch)}; the batch is kept in {batch}"
        )


def _draws(batch: Any) -> str:
    """Which examples a batch is of, where it says so."""
    if not isinstance(batch, dict):
        return ""
    draws = batch["draw"].tolist()
    return ", draws " + ", ".join(map(str, draws[:SHOWN])) + (", ..." if len(draws) > SHOWN else "")
