"""What the processes of the fault tests run; a module of its own, so that a started process can import it."""

import os
import resource
import warnings
from pathlib import Path

import torch
from composer.core import Callback

from cadenza.recipe import load
from cadenza.recipe import trainer as trainers
from cadenza.recipe.run import train


class FullDisk(Callback):
    """From batch `batch` on, no file can grow beyond 10 kB."""

    def __init__(self, batch):
        self.batch = batch

    def batch_start(self, state, logger):
        if state.timestamp.batch == self.batch:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))


def run(folder, pairs, full_at=None):
    """Play `tiny.yaml` in a process of its own; what it prints, and an error, go to `said.txt`."""
    os.dup2(os.open(folder / "said.txt", os.O_CREAT | os.O_TRUNC | os.O_WRONLY), 1)
    os.environ["CADENZA_CACHE"] = str(folder / "cache")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    usual = trainers.callbacks
    if full_at is not None:
        trainers.callbacks = lambda recipe: [FullDisk(full_at), *usual(recipe)]
    try:
        train(load([str(folder / "tiny.yaml")], pairs))
    except Exception as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        raise SystemExit(1) from None


def weights(checkpoint):
    """The weights in a checkpoint, by name."""
    return torch.load(Path(checkpoint), weights_only=False)["state"]["model"]
