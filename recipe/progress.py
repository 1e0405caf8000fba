"""A progress bar with loss, masked accuracy, real tokens/s or images/s, and the time left."""

import sys
from typing import Any

from composer.core import Callback, State, TimeUnit
from composer.loggers import Logger
from composer.utils import dist
from tqdm.auto import tqdm


class Progress(Callback):
    """One bar over all of training, on the first rank's stderr."""

    def __init__(self) -> None:
        self.bar: Any = None

    def fit_start(self, state: State, logger: Logger) -> None:
        if dist.get_global_rank() == 0:
            done = state.timestamp.batch.value
            total = _batches(state)
            self.bar = tqdm(total=total, initial=done, unit="ba", file=sys.stderr, mininterval=0.5)

    def batch_end(self, state: State, logger: Logger) -> None:
        if self.bar is None:
            return
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


def real_tokens_per_second(state: State) -> float:
    """Tokens without padding over training time without evaluation, all devices together."""
    seconds = state.timestamp.total_wct.total_seconds()
    return state.timestamp.token.value / seconds if seconds else 0.0


def samples_per_second(state: State) -> float:
    """The same of samples."""
    seconds = state.timestamp.total_wct.total_seconds()
    return state.timestamp.sample.value / seconds if seconds else 0.0


def _figures(state: State) -> str:
    tokens, samples = real_tokens_per_second(state), samples_per_second(state)
    shown = [f"{tokens:,.0f} tok/s" if tokens else f"{samples:,.0f} img/s"]
    # Composer has computed it on all ranks; to compute it again on this one alone would wait for the others.
    if (accuracy := state.train_metric_values.get("MaskedAccuracy")) is not None:
        shown.insert(0, f"accuracy {float(accuracy):.1%}")
    if state.total_loss_dict:
        shown.insert(0, f"loss {state.total_loss_dict['loss/train/total']:.3f}")
    return ", ".join(shown)


def _batches(state: State) -> int | None:
    """Batches in all of training; None where the duration can't be told in batches."""
    end = state.max_duration
    if end is None or end.unit == TimeUnit.BATCH:
        return None if end is None else end.value
    if end.unit == TimeUnit.EPOCH and state.dataloader_len is not None:
        return end.value * int(state.dataloader_len)
    if end.unit == TimeUnit.SAMPLE:
        loader: Any = state.dataloader
        per_batch = loader.batch_size * dist.get_world_size()
        return -(-end.value // per_batch)
    return None
