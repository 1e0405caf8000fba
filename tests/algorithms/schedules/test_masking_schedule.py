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


STAGES = {"0dur": 0.30, "0.6dur": 0.15, "0.9dur": 0.05}


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        (STAGES, [0.30] * 6 + [0.15] * 3 + [0.05]),
        ({"0ba": 0.4, "1ba": 0.3}, [0.4] + [0.3] * 9),
        ({"0sp": 0.4, "33sp": 0.2}, [0.4] * 5 + [0.2] * 5),
        ({"0tok": 0.2, "500tok": 0.5}, [0.2] * 5 + [0.5] * 5),
        ({"0ep": 0.2, "1ep": 0.3, "2ep": 0.4}, [0.2] * 4 + [0.3] * 4 + [0.4] * 2),
        ({"0dur": 0.2}, [0.2] * 10),
    ],
)
def test_a_stage_holds_until_the_next_begins(stages, expected):
    """Ten batches of 8 rows and 100 tokens, four in an epoch."""
    collator, logger, schedule = Collator(), Logger(), MaskingSchedule(stages=stages)
    seen = []
    for batch in range(10):
        now = state(collator)
        now.timestamp = Timestamp(
            epoch=batch // 4, batch=batch, batch_in_epoch=batch % 4, sample=8 * batch, token=100 * batch
        )
        schedule.apply(Event.BEFORE_DATALOADER, now, logger)
        seen.append(collator.mlm_probability)
    assert seen == expected
    assert [metrics["masking_schedule/mlm_probability"] for metrics in logger.logged] == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial": 0.3, "stages": STAGES}, "initial and stages are set; leave one of the two out"),
        ({"final": 0.3, "stages": STAGES}, "final and stages are set"),
        ({"stages": {}}, r"stages is \{\}; its first time must be 0, such as 0dur"),
        ({"stages": {"1ba": 0.3}}, r"its first time must be 0, such as 0dur"),
        ({"stages": {"0ba": 0.3, "0.5dur": 0.2}}, "times in ba, dur; they must be of one unit: ba, ep, sp, "),
        ({"stages": {"0sec": 0.3}}, "times in sec; they must be of one unit"),
        ({"stages": {"0ba": 0.3, "3ba": 0.2, "2ba": 0.1}}, "2ba behind 3ba; its times must ascend"),
        ({"stages": {"0dur": 0.3, "0.5dur": 0.2, "0.50dur": 0.1}}, "behind 0.5dur; its times must ascend"),
        ({"stages": {"0dur": 0.3, "2dur": 0.2}}, "'2dur'; it must be at most 1dur"),
        ({"stages": {0: 0.3}}, "a time in stages is 0; it must have a unit"),
        ({"stages": {"0dur": 1.5}}, r"stages has 1.5 at 0dur; it must lie in \(0, 1\)"),
        ({"stages": {"0dur": "much"}}, r"stages has 'much' at 0dur; it must be a number in \(0, 1\)"),
    ],
)
def test_stages_that_cannot_be(options, message):
    with pytest.raises(SurgeryError, match=message):
        MaskingSchedule(**options)


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
    MaskingSchedule(stages=STAGES).load_state_dict({"repr": repr(MaskingSchedule(stages=dict(STAGES)))})
    with pytest.raises(CheckpointError, match=r"not with MaskingSchedule\(stages=\{'0dur': 0.3"):
        MaskingSchedule(stages=STAGES).load_state_dict({"repr": repr(MaskingSchedule(0.3))})
    with pytest.raises(CheckpointError, match=r"made with MaskingSchedule\(initial=0.3, final=None\), not"):
        schedule.load_state_dict({"repr": repr(MaskingSchedule(0.3))})
