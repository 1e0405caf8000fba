"""Composer's Trainer, Hugging Face's Trainer and plain objects, as `check_resume` runs them."""

import os
from typing import Any, Protocol

from composer import Callback, Logger, State, Trainer
from torch import nn
from torch.optim import Optimizer

from cadenza.checks.findings import NotCheckable
from cadenza.checks.snapshots import Snapshot, training_state
from cadenza.checks.watch import Watch

NUMBERS = ("epoch", "batch", "sample", "token", "batch_in_epoch", "sample_in_epoch", "token_in_epoch")


class PlainTrainer(Protocol):
    """What `check_resume` needs of a trainer that is neither Composer's nor Hugging Face's."""

    model: nn.Module
    optimizer: Optimizer

    def train_batch(self) -> Any:
        """Train the next batch, and return its loss: a number or a tensor."""

    def save(self, path: str) -> None:
        """Write all that a resume needs to the file `path`."""


class Runner(Protocol):
    """A trainer of any kind."""

    def run(self, watch: Watch, done: int, loaded: str | None) -> None:
        """Train until `watch` ends it.

        Args:
            watch: is told before and after each batch.
            done: the batches that the loaded trainer has seen.
            loaded: what the trainer continues from; None: it starts.
        """

    def saved(self) -> str:
        """What a new trainer continues from, where `run` ended."""
        ...


def runner(trainer: Any, folder: str, save: bool) -> Runner:
    """A runner that saves at its end, in `folder`, if `save`."""
    if isinstance(trainer, Trainer):
        return _Composer(trainer, folder, save)
    if any(
        f"{cls.__module__}.{cls.__name__}" == "transformers.trainer.Trainer" for cls in type(trainer).__mro__
    ):
        return _HuggingFace(trainer, folder, save)
    missing = [name for name in ("model", "optimizer", "train_batch", "save") if not hasattr(trainer, name)]
    if missing:
        raise NotCheckable(
            f"make_trainer returned {type(trainer).__name__} without {', '.join(missing)}; return Composer's "
            "Trainer, Hugging Face's, or an object as cadenza.checks.PlainTrainer describes it"
        )
    return _Plain(trainer, folder, save)


class _Plain:
    """An object that trains a batch when asked to."""

    def __init__(self, trainer: Any, folder: str, save: bool) -> None:
        self.trainer, self.path, self.save = trainer, os.path.join(folder, "checkpoint"), save

    def run(self, watch: Watch, done: int, loaded: str | None) -> None:
        ended = False
        while not ended:
            done += 1
            watch.before(done, self._state)
            ended = watch.after(done, self.trainer.train_batch(), self._state)
        if self.save:
            self.trainer.save(self.path)

    def saved(self) -> str:
        return self.path

    def _state(self) -> Snapshot:
        optimizers = self.trainer.optimizer
        optimizers = optimizers if isinstance(optimizers, list | tuple) else [optimizers]
        return training_state(self.trainer.model, optimizers)


class _Composer(Callback):
    """Composer's Trainer. A checkpoint is written where Composer writes its own, after the batch."""

    def __init__(self, trainer: Trainer, folder: str, save: bool) -> None:
        self.trainer, self.path, self.save = trainer, os.path.join(folder, "checkpoint.pt"), save

    def run(self, watch: Watch, done: int, loaded: str | None) -> None:
        self.watch = watch
        self.trainer.state.callbacks.append(self)
        try:
            self.trainer.fit()
        finally:
            self.trainer.state.callbacks.remove(self)
            self.trainer.close()

    def saved(self) -> str:
        return self.path

    def batch_start(self, state: State, logger: Logger) -> None:
        self.watch.before(int(state.timestamp.batch) + 1, self._state, state.batch)

    def batch_checkpoint(self, state: State, logger: Logger) -> None:
        if self.watch.after(
            int(state.timestamp.batch), _one(list(state.total_loss_dict.values())), self._state
        ):
            if self.save:
                self.trainer.save_checkpoint(self.path)
            state.stop_training()

    def _state(self) -> Snapshot:
        state = self.trainer.state
        schedulers = [scheduler.state_dict() for scheduler in state.schedulers]
        time = {name: int(getattr(state.timestamp, name)) for name in NUMBERS}
        return training_state(state.model, state.optimizers, scheduler=schedulers, timestamp=time)


class _HuggingFace:
    """Hugging Face's Trainer. A batch is one step of the optimizer."""

    def __init__(self, trainer: Any, folder: str, save: bool) -> None:
        self.trainer, self.save = trainer, save
        trainer.args.output_dir = folder

    def run(self, watch: Watch, done: int, loaded: str | None) -> None:
        from transformers import TrainerCallback  # late: seconds that other trainers don't pay

        runner, losses, step = self, [], self.trainer.training_step

        def watched(model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if not losses:
                watch.before(self.trainer.state.global_step + 1, self._state, inputs)
            losses.append(step(model, inputs, *args, **kwargs))
            return losses[-1]

        class Steps(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if watch.after(state.global_step, _one(losses), runner._state):
                    control.should_training_stop, control.should_save = True, runner.save
                losses.clear()

        self.trainer.training_step = watched
        self.trainer.add_callback(Steps())
        self.trainer.train(resume_from_checkpoint=loaded)

    def saved(self) -> str:
        return os.path.join(self.trainer.args.output_dir, f"checkpoint-{self.trainer.state.global_step}")

    def _state(self) -> Snapshot:
        trainer = self.trainer
        return training_state(trainer.model, [trainer.optimizer], scheduler=trainer.lr_scheduler.state_dict())


def _one(losses: list[Any]) -> Any:
    """The only loss, or all."""
    return losses[0] if len(losses) == 1 else list(losses)
