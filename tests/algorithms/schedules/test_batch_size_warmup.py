"""The batch size warm-up alone: the sizes of a run, and what it refuses."""

from types import SimpleNamespace

import pytest
from composer.core import Event, Time, Timestamp
from composer.utils import dist
from torch.utils.data import DataLoader

from cadenza.algorithms import BatchSizeWarmup
from cadenza.data.growth import GrowingLoader, Growth
from cadenza.recipe import RecipeError, load
from cadenza.surgery import SurgeryError
from cadenza.surgery.errors import CheckpointError


def sizes(options, end, batches=12, full=16):
    growth = Growth(full=full, **BatchSizeWarmup(**options).growth(full, Time.from_timestring(end)))
    return [growth.size(batch) for batch in range(batches)]


@pytest.mark.parametrize(
    ("options", "end", "expected"),
    [
        ({"initial": 4, "until": "6ba"}, "99tok", [4, 4, 8, 8, 12, 12, *[16] * 6]),
        ({"initial": 4, "until": "0.06dur"}, "100ba", [4, 4, 8, 8, 12, 12, *[16] * 6]),
        ({"initial": 4, "until": "48sp"}, "1000ba", [4, 4, 4, 4, 8, 8, 12, 12, *[16] * 4]),
        ({"initial": 4, "until": "0.048dur"}, "1000sp", [4, 4, 4, 4, 8, 8, 12, 12, *[16] * 4]),
        ({"initial": 4, "until": "6ba", "step": 12}, "100ba", [*[4] * 6, *[16] * 6]),
        ({"initial": 4, "until": "6ba", "step": 6}, "100ba", [*[4] * 3, *[10] * 3, *[16] * 6]),
    ],
)
def test_sizes_of_a_run(options, end, expected):
    assert sizes(options, end) == expected


@pytest.mark.parametrize(
    ("options", "end", "message"),
    [
        ({"initial": 16}, "9ba", "initial is 16; it must be below the batch size, 16"),
        ({"initial": 4}, "2ep", "max_duration is 2ep, but epochs have different numbers of batches"),
        (
            {"initial": 4},
            "9tok",
            "until is 0.1dur of 9tok, but tokens are counted later; name it in ba or sp",
        ),
        ({"initial": 4, "until": "1ep"}, "9ba", "until is 1ep; it must be in ba, sp or dur"),
        ({"initial": 4, "until": "9tok"}, "9ba", "until is 9tok; it must be in ba, sp or dur"),
        ({"initial": 4, "until": "9"}, "9ba", "until is '9'; it must be a number with a unit"),
        ({"initial": 0}, "9ba", "initial is 0; it must be at least 1"),
        ({"initial": 4, "step": 0}, "9ba", "step is 0; it must be at least 1"),
    ],
)
def test_what_cannot_be(options, end, message):
    with pytest.raises(SurgeryError, match=message):
        sizes(options, end)


def begun(loader, **options):
    state = SimpleNamespace(
        dataloader=loader, max_duration=Time.from_timestring("9ba"), timestamp=Timestamp(), dataloader_len=9
    )
    BatchSizeWarmup(**options).apply(Event.FIT_START, state, None)
    return state


def test_loaders_and_devices_that_do_not_fit(monkeypatch):
    assert begun(GrowingLoader(range(50), 8), initial=3).dataloader_len == -1
    with pytest.raises(SurgeryError, match=r"DataLoader has batches of one size; .* isn't a stream"):
        begun(DataLoader(list(range(50)), 8), initial=2)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    with pytest.raises(SurgeryError, match="initial is 3; it must be a multiple of the 2 devices"):
        begun(GrowingLoader(range(50), 8), initial=3)
    with pytest.raises(SurgeryError, match="step is 3; it must be a multiple of the 2 devices"):
        begun(GrowingLoader(range(50), 8), initial=2, step=3)


def test_a_run_goes_on_under_its_own_warm_up():
    BatchSizeWarmup(4).load_state_dict({"repr": repr(BatchSizeWarmup(4))})
    with pytest.raises(CheckpointError, match=r"made with BatchSizeWarmup\(initial=4, .*, not with"):
        BatchSizeWarmup(8).load_state_dict({"repr": repr(BatchSizeWarmup(4))})


@pytest.mark.parametrize(
    ("pair", "key"),
    [
        ("train.max_duration=1ep", "train.max_duration is 1ep, but algorithms.batch_size_warmup grows"),
        ("scheduler.t_warmup=1ep", "scheduler.t_warmup is 1ep, but algorithms.batch_size_warmup grows"),
    ],
)
def test_a_recipe_in_epochs_is_refused(pair, key):
    with pytest.raises(RecipeError, match=key):
        load([], ["train.max_duration=9ba", "algorithms.batch_size_warmup={initial: 8}", pair])
