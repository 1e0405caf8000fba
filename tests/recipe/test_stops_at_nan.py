"""What a run refuses and says on its way: a loss that is no number, and where it goes on."""

from types import SimpleNamespace

import pytest
import torch
from composer.core import Timestamp
from composer.utils import dist

from cadenza.recipe import TrainingError, callbacks
from cadenza.recipe.callbacks import Resuming, StopsAtNaN
from cadenza.surgery import Surgery


def state(loss=None, batch=None):
    return SimpleNamespace(
        total_loss_dict={} if loss is None else {"loss/train/total": loss},
        batch=batch,
        timestamp=Timestamp(epoch=2, batch=17, batch_in_epoch=3),
    )


@pytest.mark.parametrize("loss", [None, 0.0, -3.0, 1e308, -1e308])
def test_a_number_stops_nothing(loss, tmp_path):
    StopsAtNaN(tmp_path / "run").batch_end(state(loss), None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("rank", [0, 3])
def test_no_number_ends_the_run_and_each_rank_keeps_its_batch(loss, rank, tmp_path, monkeypatch):
    monkeypatch.setattr(dist, "get_global_rank", lambda: rank)
    batch = {"input_ids": torch.arange(6).view(2, 3), "draw": torch.tensor([40, 41])}
    folder = tmp_path / "not/there"
    for _ in range(2):  # the second time the folder is there
        with pytest.raises(TrainingError) as stop:
            StopsAtNaN(folder).batch_end(state(loss, batch), None)
        kept = folder / f"bad-batch-rank{rank}.pt"
        assert str(stop.value) == (
            f"the loss is {loss} at batch 17 (epoch 2, its batch 3), draws 40, 41; "
            f"the batch is saved in {kept}"
        )
    found = torch.load(kept)
    assert all(torch.equal(found[key], batch[key]) for key in batch)


@pytest.mark.parametrize(
    ("draws", "said"),
    [
        (range(8), ", draws 0, 1, 2, 3, 4, 5, 6, 7;"),
        (range(9), ", draws 0, 1, 2, 3, 4, 5, 6, 7, ...;"),
        ([5], ", draws 5;"),
    ],
)
def test_the_first_eight_draws_are_named(draws, said, tmp_path):
    with pytest.raises(TrainingError) as stop:
        StopsAtNaN(tmp_path).batch_end(state(float("nan"), {"draw": torch.tensor(list(draws))}), None)
    assert f"its batch 3){said} the batch" in str(stop.value)


def test_images_have_no_draws(tmp_path):
    batch = [torch.zeros(2, 1, 8, 8), torch.zeros(2)]
    with pytest.raises(TrainingError, match=r"its batch 3\); the batch is saved"):
        StopsAtNaN(tmp_path).batch_end(state(float("nan"), batch), None)


def loaded(seed, rank, batch, monkeypatch):
    monkeypatch.setattr(dist, "get_global_rank", lambda: rank)
    state = SimpleNamespace(
        timestamp=Timestamp(batch=batch), load_path="a.pt", rank_zero_seed=17, train_dataloader=None
    )
    Resuming(seed).after_load(state, None)


def test_the_first_rank_says_where_a_run_goes_on(capsys, monkeypatch):
    resumed = "resumed after batch 1: a.pt\n"
    other = "seed 17 in the checkpoint, 3 here: order and masks of the data follow 3\n"
    for seed, rank, batch, said in [
        (17, 0, 1, resumed),
        (3, 0, 1, resumed + other),
        (3, 0, 0, ""),
        (3, 1, 1, ""),
        (3, 1, 0, ""),
    ]:
        loaded(seed, rank, batch, monkeypatch)
        assert capsys.readouterr().out == said


def test_checkpoints_are_guarded_from_the_start(monkeypatch):
    guarded = []
    monkeypatch.setattr(callbacks, "guard", lambda *args: guarded.append(args))
    Resuming(17).init("state", None)
    assert guarded == [("state", Surgery)]
