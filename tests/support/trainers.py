"""Composer's Trainer over a few fixed batches, and the state that it hands to a schedule."""

import warnings
from types import SimpleNamespace

import torch
from composer import Trainer
from composer.core import Time, Timestamp
from families import batch, build
from torch.utils.data import DataLoader

from cadenza.models import composer_model
from cadenza.recipe.run import built_of, task_of
from cadenza.recipe.trainer import trainer_settings

BATCHES = 4


def short_trainer(model, algorithms, family="bert", **kwargs):
    """A Trainer over three fixed batches."""
    data = [batch(family, seed=seed) for seed in range(3)]
    kwargs = {"max_duration": "1ep", "progress_bar": False, "algorithms": algorithms, **kwargs}
    kwargs["device_train_microbatch_size"] = 3
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(optimizer|device_train|scheduler|tokenizer).*")
        return Trainer(
            model=composer_model(model), train_dataloader=DataLoader(data, batch_size=None), **kwargs
        )


def trained(recipe, *callbacks):
    """The Trainer of a resolved recipe, after its run, with further callbacks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings, task = trainer_settings(recipe), task_of(recipe)
        settings["callbacks"] += callbacks
        trainer = built_of(task, settings).trainer
        trainer.fit()
    return trainer


def resumable_trainer(algorithms, folder=None, seed=5, family="bert", **kwargs):
    """A Trainer over four fixed batches, with dropout, so that random states count."""
    data = [batch(family, seed=each) for each in range(BATCHES)]
    model = build(family, seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    return Trainer(
        model=composer_model(model.train()),
        train_dataloader=DataLoader(data, batch_size=None),
        optimizers=optimizer,
        algorithms=algorithms,
        max_duration=f"{BATCHES}ba",
        device_train_microbatch_size=3,
        seed=5,
        run_name="run",
        save_folder=None if folder is None else str(folder),
        save_interval="2ba",
        progress_bar=False,
        **kwargs,
    )


def state_at(batch, end="250ep", per_epoch=10):
    """The state of a training of 250 epochs of 10 batches, after some of them."""
    epochs = {} if per_epoch is None else {"epoch": batch // per_epoch, "batch_in_epoch": batch % per_epoch}
    return SimpleNamespace(
        max_duration=Time.from_timestring(end),
        dataloader_len=None if per_epoch is None else Time.from_batch(per_epoch),
        timestamp=Timestamp(batch=batch, **epochs),
    )
