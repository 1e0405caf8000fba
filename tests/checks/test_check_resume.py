"""A resume that loses something is caught, and what it lost is named."""

import random

import numpy as np
import pytest
import torch
from families import batch, build
from torch import nn
from trainers import resumable_trainer

from cadenza.checks import CheckFailed, NotCheckable, check_resume

pytestmark = pytest.mark.filterwarnings("ignore")


class Plain:
    """A training of a small network with dropout, on batches that are drawn."""

    def __init__(self, path=None, lost=(), seed=5):
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 1))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        self.batches = 0
        if path is not None:
            self.load(torch.load(path, weights_only=False), lost)

    def train_batch(self):
        data = torch.randn(6, 4, generator=torch.Generator().manual_seed(self.batches))
        loss = self.model(data).square().mean() + random.random() + np.random.rand()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.batches += 1
        return loss

    def parts(self):
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "batches": self.batches,
            "torch": torch.get_rng_state(),
            "numpy": np.random.get_state(),
            "python": random.getstate(),
        }

    def save(self, path):
        torch.save(self.parts(), path)

    def load(self, parts, lost):
        apply = {
            "model": self.model.load_state_dict,
            "optimizer": self.optimizer.load_state_dict,
            "batches": lambda batches: vars(self).update(batches=batches),
            "torch": torch.set_rng_state,
            "numpy": np.random.set_state,
            "python": random.setstate,
        }
        for name, load in apply.items():
            if name not in lost:
                load(parts[name])


def test_a_resume_that_loses_nothing():
    text = str(check_resume(Plain))
    assert text.startswith("check_resume of Plain: passed; difference in the state after the resume (")
    assert text.count(" 0 (allowed: 0)") == 3


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ("model", r"weight 0\.weight is off by .* at \[\d, \d\] at batch 3, before its forward"),
        ("optimizer", r"optimizer state step of 0\.weight is missing at batch 3"),
        ("torch", "random state of torch is another at batch 3"),
        ("numpy", "random state of numpy is another at batch 3"),
        ("python", "random state of Python is another at batch 3"),
        ("batches", r"loss of batch 3 is off by .* at a state that was right at batch 3"),
    ],
)
def test_what_is_lost_is_named(lost, words):
    with pytest.raises(CheckFailed, match=words):
        check_resume(lambda path: Plain(path, (lost,)))


def test_a_buffer_is_named():
    class Other(Plain):
        def load(self, parts, lost):
            super().load(parts, lost)
            self.model[1].running_mean.zero_()

    with pytest.raises(CheckFailed, match=r"weight 1\.running_mean is off by"):
        check_resume(Other)


def test_a_learning_rate_is_named():
    class Other(Plain):
        def load(self, parts, lost):
            super().load(parts, lost)
            self.optimizer.param_groups[0]["lr"] = 0.02

    with pytest.raises(CheckFailed, match=r"optimizer group 0: lr is 0\.02, not 0\.01 at batch 3"):
        check_resume(Other)


def test_a_difference_that_shows_late_is_named():
    """The fourth batch alone is another, so its loss is the first that differs."""

    class Other(Plain):
        def train_batch(self):
            if self.batches == 3 and self.resumed:
                self.batches = 8
            return super().train_batch()

        def __init__(self, path=None):
            self.resumed = path is not None
            super().__init__(path)

    with pytest.raises(CheckFailed, match="loss of batch 4 is off by"):
        check_resume(Other, batches=5, save_after=1)


def test_a_training_that_cannot_be_repeated_is_told():
    seeds = iter(range(9))
    with pytest.raises(NotCheckable, match="trained twice from the start: loss of batch 1 is off by"):
        check_resume(lambda path: Plain(path, seed=next(seeds)))


def test_random_states_are_left_as_they_were():
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    check_resume(Plain)
    assert expected == (random.random(), np.random.rand(), torch.rand(1))


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (
            lambda path: nn.Linear(1, 1),
            {},
            "Linear without model, optimizer, train_batch, save; return Composer's",
        ),
        (Plain, {"save_after": 4}, "save_after=4 of 4 batches"),
    ],
)
def test_what_cannot_be_checked_is_told(make, options, words):
    with pytest.raises(NotCheckable, match=words):
        check_resume(make, **options)


def composers(**options):
    return lambda path: resumable_trainer([], load_path=path, **options)


def lossy(**options):
    """Composer's Trainer that restores less when it resumes."""
    return lambda path: resumable_trainer([], load_path=path, **(options if path else {}))


def test_composers_trainer_loses_nothing():
    assert "check_resume of Trainer: passed" in str(check_resume(composers()))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"load_ignore_keys": ["state/optimizers"]},
            "optimizer state step of .*word_embeddings.weight is missing",
        ),
        ({"load_ignore_keys": ["rng"]}, "random state of torch is another at batch 3, before its forward"),
        ({"spin_dataloaders": False}, r"batch input_ids is off by .* at batch 3, before its forward"),
        ({"load_weights_only": True}, "number of the first batch after the resume is 1, not 3"),
    ],
)
def test_what_composers_trainer_loses_is_named(options, words):
    with pytest.raises(CheckFailed, match=words):
        check_resume(lossy(**options))


def test_a_trainer_that_ends_early_is_told():
    with pytest.raises(NotCheckable, match="Trainer ended after batch 4; make it train 7 or more"):
        check_resume(composers(), batches=7)


class Rows(torch.utils.data.Dataset):
    """Forty rows."""

    def __len__(self):
        return 40

    def __getitem__(self, number):
        return {name: each[0] for name, each in batch("bert", rows=1, seed=number, padding=None).items()}


def hugging_face(folder, **options):
    from transformers import Trainer, TrainingArguments  # seconds that only these tests pay

    fixed = {"use_cpu": True, "report_to": [], "disable_tqdm": True, "per_device_train_batch_size": 2}
    arguments = TrainingArguments(str(folder), max_steps=6, **fixed, **options)
    return lambda path: Trainer(build("bert").train(), arguments, train_dataset=Rows())


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2}])
def test_hugging_faces_trainer_loses_nothing(tmp_path, options):
    check_resume(hugging_face(tmp_path, **options))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"save_only_model": True}, "optimizer group 0: lr is .* at batch 3"),
        ({"ignore_data_skip": True}, "batch input_ids is off by .* at batch 3"),
    ],
)
def test_what_hugging_faces_trainer_loses_is_named(tmp_path, options, words):
    with pytest.raises(CheckFailed, match=words):
        check_resume(hugging_face(tmp_path, **options))
