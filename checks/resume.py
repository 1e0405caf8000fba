"""Whether a training that is interrupted and resumed ends as one that isn't."""

import random
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from cadenza.checks.findings import CheckFailed, Finding, NotCheckable, Passed
from cadenza.checks.snapshots import Difference, first_difference
from cadenza.checks.trainers import runner
from cadenza.checks.watch import Watch
from cadenza.probes.untouched import same_random_state

MakeTrainer = Callable[[str | None], Any]


def check_resume(
    make_trainer: MakeTrainer, *, batches: int = 4, save_after: int = 2, seed: int = 0
) -> Passed:
    """Check that a resumed training is, bit for bit, the uninterrupted one.

    Three trainings: `batches` without a stop; `save_after`, then a checkpoint; a new trainer that continues
    from this checkpoint. Compared are what the next batch finds (the batch itself, weights, the state and
    options of the optimizer, scheduler, random states), the loss of each batch, and the state at the end.

    Args:
        make_trainer: a function of `load_path`; it returns a new trainer that continues from `load_path` or,
            if that is None, starts, and seeds what it draws. The trainer is Composer's, given `load_path` as
            its argument and no `save_folder`; or Hugging Face's, where the function ignores `load_path`: the
            check passes `resume_from_checkpoint`; or an object as `PlainTrainer` describes it.
        batches: how many batches, or steps of Hugging Face's optimizer, are trained; the trainer's own
            duration, on which a schedule depends, is at least as long.
        save_after: after how many of them the checkpoint is written.
        seed: of the random state before each trainer is made; the resumed one gets another.

    Raises:
        CheckFailed: the resumed training differs; the message names the first difference.
        NotCheckable: the trainer is of another kind, ends too early, or doesn't train twice the same.
    """
    if not 0 < save_after < batches:
        raise NotCheckable(f"save_after={save_after} of {batches} batches; it must be 1 or more, and not all")
    if dist.is_initialized() and dist.get_world_size() > 1:
        raise NotCheckable("check_resume compares trainings of one process; run it in one")
    devices = {torch.device("cuda", number) for number in range(torch.cuda.device_count())}
    with same_random_state(devices):
        run = _Runs(make_trainer, seed, save_after + 1)
        with tempfile.TemporaryDirectory() as folder:
            straight, _ = run(batches, folder)
            shorter, checkpoint = run(save_after, folder, save=True)
            run.require_repeatable(straight, shorter)
            resumed, _ = run(batches, folder, loaded=checkpoint)
    return _compared(f"check_resume of {run.name}", straight, resumed, save_after)


class _Runs:
    """Trainings by new trainers.

    Args:
        start: the first batch after the checkpoint.
    """

    def __init__(self, make_trainer: MakeTrainer, seed: int, start: int) -> None:
        self.make_trainer, self.seed, self.start, self.name = make_trainer, seed, start, ""

    def __call__(
        self, end: int, folder: str, *, save: bool = False, loaded: str | None = None
    ) -> tuple[Watch, str]:
        """Train until batch `end`; what was seen, and the checkpoint."""
        _seed(self.seed if loaded is None else self.seed + 1)
        trainer = self.make_trainer(loaded)
        self.name = type(trainer).__name__
        watch, running = Watch(self.start, end), runner(trainer, folder, save)
        running.run(watch, self.start - 1 if loaded else 0, loaded)
        if watch.last < end and loaded is None:
            raise NotCheckable(f"{self.name} ended after batch {watch.last}; make it train {end} or more")
        return watch, running.saved()

    def require_repeatable(self, one: Watch, other: Watch) -> None:
        """Two trainings without a resume must be the same, or no resume can be."""
        expected = one.losses_from(1, other.last)
        if (found := first_difference(expected, other.losses_from(1))) is not None:
            raise NotCheckable(
                f"{self.name} trained twice from the start: {found.name} {found.words}; seed all that "
                "make_trainer draws (Trainer(seed=...)), and use deterministic operations"
            )


def _compared(check: str, straight: Watch, resumed: Watch, save_after: int) -> Passed:
    """Compare two trainings in the order of time."""
    result = Passed(check)
    _require_number(check, "first batch after the resume", save_after + 1, resumed.first)
    _require_number(check, "last batch", straight.last, resumed.last)
    before = f"batch {save_after + 1}, before its forward"
    moments = (
        ("state after the resume", straight.started, resumed.started, before),
        (
            "losses",
            straight.losses_from(save_after + 1),
            resumed.losses_from(1),
            f"a state that was right at {before}",
        ),
        ("state at the end", straight.ended, resumed.ended, f"the end, after batch {straight.last}"),
    )
    for what, expected, found, where in moments:
        if (difference := first_difference(expected, found)) is not None:
            _fail(check, difference, where)
        result.note(Finding(f"difference in the {what} ({len(expected)} values)", where, 0.0, 0.0))
    return result


def _require_number(check: str, what: str, expected: int, found: int | None) -> None:
    if found != expected:
        words = "is missing" if found is None else f"is {found}, not {expected}"
        _fail(check, Difference(f"number of the {what}", words), "the resumed training")


def _fail(check: str, difference: Difference, where: str) -> None:
    finding = Finding(difference.name, where, difference.amount, 0.0, difference.words)
    raise CheckFailed(check, finding)


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
