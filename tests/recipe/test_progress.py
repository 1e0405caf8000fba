"""The progress bar: how long it is, what it shows, on which rank."""

from datetime import timedelta
from types import SimpleNamespace

import pytest
from composer.core import Time, Timestamp
from composer.utils import dist

from cadenza.recipe import callbacks
from cadenza.recipe.callbacks import Progress
from cadenza.recipe.record import real_tokens_per_second, samples_per_second

LATER = timedelta(seconds=20)


def state(**more):
    """Of a run of 3 epochs of 7 batches, in its second one."""
    given = {
        "max_duration": Time.from_timestring("3ep"),
        "dataloader_len": Time.from_batch(7),
        "dataloader": SimpleNamespace(batch_size=4),
        "timestamp": Timestamp(batch=9, epoch=1, batch_in_epoch=2, sample=36, token=500, total_wct=LATER),
        "train_metric_values": {},
        "total_loss_dict": {},
    }
    return SimpleNamespace(**{**given, **more})


class Bar:
    """Keeps what is asked of it."""

    def __init__(self, **options):
        self.options, self.said, self.now, self.closed = options, [], options["initial"], 0

    def set_postfix_str(self, text, refresh):
        self.said.append((text, refresh))

    def set_description(self, text):
        self.said.append(text)

    def update(self, count):
        self.now += count

    def close(self):
        self.closed += 1


@pytest.fixture
def bars(monkeypatch):
    made = []
    monkeypatch.setattr(callbacks, "tqdm", lambda **options: made.append(Bar(**options)) or made[-1])
    return made


def test_one_bar_from_where_training_stands(bars, monkeypatch):
    err = object()
    monkeypatch.setattr("sys.stderr", err)
    callback = Progress()
    callback.fit_start(state(), None)
    (bar,) = bars
    options = {key: bar.options[key] for key in ("total", "initial", "unit", "file")}
    assert options == {"total": 21, "initial": 9, "unit": "ba", "file": err}
    callback.batch_end(state(), None)
    callback.batch_end(state(), None)
    assert bar.now == 11
    callback.eval_start(state(), None)
    callback.eval_end(state(), None)
    assert bar.said == [("25 tok/s", False)] * 2 + ["evaluating", ""]
    callback.fit_end(state(), None)
    callback.close(state(), None)
    assert bar.closed == 1
    for event in (callback.batch_end, callback.eval_start, callback.eval_end):
        event(state(), None)  # an evaluation after training shows nothing
    assert (bar.now, len(bar.said)) == (11, 4)


def test_other_ranks_show_nothing(bars, monkeypatch):
    monkeypatch.setattr(dist, "get_global_rank", lambda: 1)
    callback = Progress()
    for event in ("fit_start", "batch_end", "eval_start", "eval_end", "fit_end", "close"):
        getattr(callback, event)(state(), None)
    assert bars == []


@pytest.mark.parametrize(
    ("duration", "length", "total"),
    [
        ("50ba", 7, 50),
        ("3ep", 7, 21),
        ("3ep", None, None),
        ("64sp", 7, 8),
        ("65sp", None, 9),
        ("71sp", 7, 9),
        ("72sp", 7, 9),
        ("900tok", 7, None),
        (None, 7, None),
    ],
)
def test_how_long_a_bar_is(duration, length, total, bars, monkeypatch):
    """A batch of two devices has eight samples."""
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    end = duration and Time.from_timestring(duration)
    length = length and Time.from_batch(length)
    Progress().fit_start(state(max_duration=end, dataloader_len=length), None)
    assert bars[0].options["total"] == total


@pytest.mark.parametrize(
    ("more", "shown"),
    [
        ({}, "25 tok/s"),
        ({"total_loss_dict": {"loss/train/total": 1.23456}}, "loss 1.235, 25 tok/s"),
        ({"train_metric_values": {"MaskedAccuracy": 0.4567}}, "accuracy 45.7%, 25 tok/s"),
        ({"train_metric_values": {"MaskedAccuracy": 0.0}}, "accuracy 0.0%, 25 tok/s"),
        (
            {
                "total_loss_dict": {"loss/train/total": 2.0},
                "train_metric_values": {"MaskedAccuracy": 1.0},
                "timestamp": Timestamp(sample=36_000, token=0, total_wct=LATER),
            },
            "loss 2.000, accuracy 100.0%, 1,800 img/s",
        ),
        ({"timestamp": Timestamp(token=24_690_000, total_wct=LATER)}, "1,234,500 tok/s"),
    ],
)
def test_what_a_bar_shows(more, shown, bars):
    callback = Progress()
    callback.fit_start(state(), None)
    callback.batch_end(state(**more), None)
    assert bars[0].said == [(shown, False)]


def test_rates():
    assert (real_tokens_per_second(state()), samples_per_second(state())) == (25.0, 1.8)
    begin = state(timestamp=Timestamp(sample=3, token=4))
    assert (real_tokens_per_second(begin), samples_per_second(begin)) == (0.0, 0.0)
