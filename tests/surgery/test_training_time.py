"""How far training has come, by each unit of time."""

from types import SimpleNamespace

import pytest
from composer.core import Time, Timestamp

from cadenza.surgery.runtime import progress, reached

NOW = Timestamp(epoch=1, batch=7, sample=30, token=500, batch_in_epoch=2)


def state(end, batches=4, now=NOW):
    end = None if end is None else Time.from_timestring(end)
    return SimpleNamespace(max_duration=end, timestamp=now, dataloader_len=batches)


@pytest.mark.parametrize(
    ("end", "batches", "share"),
    [
        (None, 4, 0.0),
        ("4ep", 4, (1 + 2 / 4) / 4),
        ("4ep", None, 1 / 4),  # of a stream nobody knows how far the epoch has come
        ("14ba", 4, 0.5),
        ("120sp", 4, 0.25),
        ("1000tok", None, 0.5),
    ],
)
def test_the_share_that_is_done(end, batches, share):
    assert progress(state(end, batches)) == share


@pytest.mark.parametrize(
    ("time", "come"),
    [
        ("7ba", True),
        ("8ba", False),
        ("30sp", True),
        ("31sp", False),
        ("1ep", True),
        ("2ep", False),
        ("0.5dur", True),
        ("0.51dur", False),
    ],
)
def test_a_time_is_reached_when_it_has_come(time, come):
    assert reached(state("14ba"), Time.from_timestring(time)) is come
