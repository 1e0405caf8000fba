"""The masking schedule alone: ratios, what it sets and logs, what it refuses."""

from types import SimpleNamespace

import pytest
from composer.core import Event, Time, Timestamp

from cadenza.algorithms import MaskingSchedule
from cadenza.surgery import SurgeryError
from cadenza.surgery.errors import CheckpointError


class Logger:
    def __init__(self):
        self.logged = []

    def log_metrics(self, metrics):
        self.logged.append(metrics)


class Collator:
    mlm_probability = 0.0


class Masking(Collator):
    mask = None


def state(collator, batches=0, **loader):
    """Of a run of ten batches, so many of them done."""
    return SimpleNamespace(
        dataloader=SimpleNamespace(collate_fn=collator, **loader),
        dataloader_len=None,
        max_duration=Time.from_timestring("10ba"),
        timestamp=Timestamp(batch=batches),
    )


def test_defaults():
    assert repr(MaskingSchedule()) == "MaskingSchedule(initial=0.3, final=None)"
    assert MaskingSchedule().ratio(1.0) == 0.3


def test_a_ratio_moves_between_its_ends_and_not_beyond():
    schedule = MaskingSchedule(0.4, 0.1)
    ratios = [schedule.ratio(progress) for progress in (-1.0, 0.0, 0.25, 1.0, 1.5)]
    assert ratios == pytest.approx([0.4, 0.4, 0.325, 0.1, 0.1])


@pytest.mark.parametrize("name", ["initial", "final"])
@pytest.mark.parametrize("ratio", [0, 1, -0.1, 1.5])
def test_ratios_lie_between_zero_and_one(name, ratio):
    with pytest.raises(SurgeryError, match=rf"{name} is {ratio}; it must lie in \(0, 1\)"):
        MaskingSchedule(**{name: ratio})
    assert MaskingSchedule(0.999, 0.001).final == 0.001


def test_it_is_played_before_each_batch_alone():
    schedule = MaskingSchedule()
    assert [event for event in Event if schedule.match(event, None)] == [Event.BEFORE_DATALOADER]


def test_what_it_sets_it_logs():
    collator, logger, schedule = Collator(), Logger(), MaskingSchedule(0.4, 0.2)
    for batches in (0, 5):
        schedule.apply(Event.BEFORE_DATALOADER, state(collator, batches), logger)
    assert collator.mlm_probability == pytest.approx(0.3)
    logged = [metrics["masking_schedule/mlm_probability"] for metrics in logger.logged]
    assert logged == pytest.approx([0.4, 0.3])


def played(collator, **loader):
    MaskingSchedule(0.4).apply(Event.BEFORE_DATALOADER, state(collator, **loader), Logger())
    return collator.mlm_probability


def test_collators_that_mask_in_workers_are_out_of_reach():
    assert played(Collator()) == played(Collator(), num_workers=0) == 0.4
    assert played(Masking(), num_workers=2) == 0.4
    with pytest.raises(SurgeryError, match="can't set the ratio of Collator in workers"):
        played(Collator(), num_workers=1)


def test_collators_without_a_ratio_are_refused():
    with pytest.raises(SurgeryError, match="needs a collate_fn with mlm_probability, not object"):
        played(object())
    without = state(Collator())
    without.dataloader = object()
    with pytest.raises(SurgeryError, match="not NoneType"):
        MaskingSchedule().apply(Event.BEFORE_DATALOADER, without, Logger())


def test_a_run_goes_on_under_its_own_schedule():
    schedule = MaskingSchedule(0.3, 0.2)
    schedule.load_state_dict({"repr": repr(MaskingSchedule(0.3, 0.2))})
    with pytest.raises(CheckpointError, match=r"made with MaskingSchedule\(initial=0.3, final=None\), not"):
        schedule.load_state_dict({"repr": repr(MaskingSchedule(0.3))})
