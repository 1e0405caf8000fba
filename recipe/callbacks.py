"""Callbacks of every run: checks when it resumes, a progress bar, and a stop at a non-finite loss."""

import math
import sys
from pathlib import Path
from typing import Any

import torch
from composer import Trainer
from composer.core import Callback, State, TimeUnit
from composer.loggers import Logger
from composer.utils import dist, reproducibility
from tqdm.auto import tqdm

from cadenza.data.draws import Drawn
from cadenza.data.ranks import show
from cadenza.data.resuming import Resumable
from cadenza.recipe.errors import TrainingError
from cadenza.recipe.record import real_tokens_per_second, samples_per_second
from cadenza.surgery import Surgery
from cadenza.surgery.resume import guard

MAX_SHOWN = 8  # draw numbers of a batch that an error lists


class Resuming(Callback):
    """Refuses a checkpoint with other techniques, and prints the batch at which a run resumes."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def init(self, state: State, logger: Logger) -> None:
        guard(state, Surgery)

    def after_load(self, state: State, logger: Logger) -> None:
        if state.timestamp.batch.value == 0:
            return
        show(f"resumed after batch {state.timestamp.batch.value}: {state.load_path}")
        if state.rank_zero_seed != self.seed:
            seeds = f"seed {state.rank_zero_seed} in the checkpoint, {self.seed} here"
            show(f"{seeds}: order and masks of the data follow {self.seed}")
        self._count_taken(state)

    @staticmethod
    def _count_taken(state: State) -> None:
        """Of a checkpoint without a state of such data: of an earlier version, or of other data."""
        dataset = getattr(state.train_dataloader, "dataset", None)
        if isinstance(dataset, Drawn) and dataset.taken is None:
            dataset.taken = int(state.timestamp.sample_in_epoch)
        if isinstance(dataset, Resumable) and dataset.now is None:
            dataset.replay(int(state.timestamp.epoch), int(state.timestamp.batch_in_epoch))


class RestoresRandomness(Callback):
    """Restores the random numbers of a run that is resumed within an epoch.

    It does so when the first batch is there, or at the end of an epoch that had its last batch before the
    checkpoint: making the batches takes random numbers, too. Composer restores them itself only where it
    loads all earlier batches of the epoch.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def after_dataloader(self, state: State, logger: Logger) -> None:
        saved, self.trainer._rng_state = self.trainer._rng_state, None
        if saved is not None:
            reproducibility.load_rng_state(saved)

    epoch_end = after_dataloader


class StopsAtNaN(Callback):
    """Ends training at a non-finite loss, before a checkpoint is saved, and writes the batch to `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def batch_end(self, state: State, logger: Logger) -> None:
        loss = state.total_loss_dict.get("loss/train/total", 0.0)
        if math.isfinite(loss):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path, time = self.folder / f"bad-batch-rank{dist.get_global_rank()}.pt", state.timestamp
        torch.save(state.batch, path)
        raise TrainingError(
            f"the loss is {loss} at batch {time.batch.value} (epoch {time.epoch.value}, its batch "
            f"{time.batch_in_epoch.value}){_draws(state.batch)}; the batch is saved in {path}"
        )


def _draws(batch: Any) -> str:
    """The draw numbers of the examples in a batch of text; nothing for a batch of images."""
    if not isinstance(batch, dict):
        return ""
    draws = batch["draw"].tolist()
    return ", draws " + ", ".join(map(str, draws[:MAX_SHOWN])) + ", ..." * (len(draws) > MAX_SHOWN)


class Progress(Callback):
    """One progress bar over all of training, on the first rank's stderr."""

    def __init__(self) -> None:
        self.bar: Any = None

    def fit_start(self, state: State, logger: Logger) -> None:
        if dist.get_global_rank() == 0:
            options = {"unit": "ba", "file": sys.stderr, "mininterval": 0.5}
            self.bar = tqdm(total=_batches(state), initial=state.timestamp.batch.value, **options)

    def batch_end(self, state: State, logger: Logger) -> None:
        if self.bar is not None:
            self.bar.set_postfix_str(_figures(state), refresh=False)
            self.bar.update(1)

    def eval_start(self, state: State, logger: Logger) -> None:
        if self.bar is not None:
            self.bar.set_description("evaluating")

    def eval_end(self, state: State, logger: Logger) -> None:
        if self.bar is not None:
            self.bar.set_description("")

    def close(self, state: State, logger: Logger) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    fit_end = close


def _figures(state: State) -> str:
    tokens, samples = real_tokens_per_second(state), samples_per_second(state)
    shown = [f"{tokens:,.0f} tok/s" if tokens else f"{samples:,.0f} img/s"]
    # Composer computed the metric on all ranks; computing it on this rank alone would wait for the others.
    if (accuracy := state.train_metric_values.get("MaskedAccuracy")) is not None:
        shown.insert(0, f"accuracy {float(accuracy):.1%}")
    if state.total_loss_dict:
        shown.insert(0, f"loss {state.total_loss_dict['loss/train/total']:.3f}")
    return ", ".join(shown)


def _batches(state: State) -> int | None:
    """The number of batches in all of training; None if the duration can't be converted to batches."""
    end = state.max_duration
    if end is None or end.unit == TimeUnit.BATCH:
        return None if end is None else end.value
    if end.unit == TimeUnit.EPOCH and state.dataloader_len is not None:
        return end.value * int(state.dataloader_len)
    if end.unit == TimeUnit.SAMPLE:
        loader: Any = state.dataloader
        growth = getattr(getattr(loader, "growing", None), "growth", None)
        if growth is not None:
            return growth.batches(end.value)
        return -(-end.value // (loader.batch_size * dist.get_world_size()))
    return None
