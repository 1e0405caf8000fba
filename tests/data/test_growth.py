"""Growing batches: sizes against a plain count, and the rows of a sampler in their order."""

from dataclasses import asdict
from itertools import accumulate

import pytest
from composer.utils import dist

from cadenza.data.draws import Drawn, EpochSampler
from cadenza.data.growth import GrowingLoader, Growth

GROWTHS = [
    Growth(4, 16, 4, 6),
    Growth(4, 16, 4, 7),
    Growth(4, 18, 5, 10),
    Growth(3, 4, 9, 5),
    Growth(2, 64, 2, 3),  # more sizes than batches
    Growth(4, 16, 4, 100, by_rows=True),
    Growth(8, 64, 8, 20, by_rows=True),  # sizes that no batch has
    Growth(1, 1000, 7, 99_999, by_rows=True),
]


def counted(growth, batches):
    """The sizes one after another: of the growths `number / times` of the warm-up, those that have passed."""
    times, sizes, rows = -(-(growth.full - growth.initial) // growth.step), [], 0
    for batch in range(batches):
        now = rows if growth.by_rows else batch
        passed = sum(now * times >= growth.until * number for number in range(1, times + 1))
        sizes.append(min(growth.initial + passed * growth.step, growth.full))
        rows += sizes[-1]
    return sizes


@pytest.mark.parametrize("growth", GROWTHS)
def test_sizes_and_rows_are_those_of_a_plain_count(growth):
    sizes = counted(growth, 700)
    assert [growth.size(batch) for batch in range(700)] == sizes
    sums = [0, *accumulate(sizes)]
    assert [growth.rows(batches) for batches in range(701)] == sums
    for rows in range(0, min(sums[-1], 2000)):
        assert growth.batches(rows) == sum(done < rows for done in sums)


class Rows(Drawn):
    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, draw):
        return draw


def loader(count=50, workers=0, full=8):
    rows = Rows(count)
    options = {"drop_last": True, "collate_fn": list, "num_workers": workers}
    return GrowingLoader(rows, full, sampler=EpochSampler(rows, True, 3), **options)


def grow(made, growth, *numbers):
    given = asdict(growth)
    full = given.pop("full")
    made.grow(*(numbers if len(numbers) == 2 else (*numbers, 0)), **given)
    assert made.growing.growth.full == full


def epochs(made, growth, first=0, epochs=(0,)):
    """The batches of epochs, as Composer begins them."""
    found = []
    for epoch in epochs:
        made.sampler.set_epoch(epoch)
        if growth is not None:
            grow(made, growth, first + len(found))
        found += list(made)
    return found


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_come_in_their_order_each_once_an_epoch(workers):
    growth = Growth(2, 8, 2, 9)
    order = [draw for epoch in (0, 1) for draw in _order(50, epoch)]
    grown = epochs(loader(workers=workers), growth, epochs=(0, 1))
    sizes = [len(batch) for batch in grown]
    assert sizes == [2, 2, 2, 4, 4, 4, 6, 6, 6, 8, *[8] * 6]  # 44 rows, since 6 don't fill a batch; then 48
    first = [draw for batch in grown[:10] for draw in batch]
    second = [draw for batch in grown[10:] for draw in batch]
    assert first == order[:44]
    assert second == order[50:98]
    assert epochs(loader(workers=workers), None) == [order[n : n + 8] for n in range(0, 48, 8)]


def _order(count, epoch):
    sampler = EpochSampler(Rows(count), True, 3)
    sampler.set_epoch(epoch)
    return list(sampler)


@pytest.mark.parametrize("done", range(11))
def test_a_resume_goes_on_behind_the_batches_that_are_done(done):
    growth = Growth(2, 8, 2, 9)
    whole, resumed = epochs(loader(), growth), loader()
    resumed.dataset.load_state_dict({"taken": growth.rows(done), "length": 50})
    grow(resumed, growth, done, done)
    assert len(resumed) == len(whole)
    assert list(resumed) == whole[done:]


def test_devices_share_each_batch(monkeypatch):
    """Two devices: the rows of a batch are those that one device has."""
    growth, alone = Growth(4, 16, 4, 6), epochs(loader(full=16), Growth(4, 16, 4, 6))
    shares = []
    for rank in (0, 1):
        monkeypatch.setattr(dist, "get_world_size", lambda: 2)
        monkeypatch.setattr(dist, "get_global_rank", lambda rank=rank: rank)
        shares.append(epochs(loader(), growth))
    both = [sorted([*one, *two]) for one, two in zip(*shares, strict=True)]
    assert both == [sorted(batch) for batch in alone]


@pytest.mark.parametrize("growth", GROWTHS)
def test_each_epoch_has_its_own_number_of_batches(growth):
    made = loader(count=1100, full=growth.full)
    assert len(made) == 1100 // growth.full
    first = 0
    for _ in range(4):
        grow(made, growth, first)
        first += len(list(made))
        assert len(made) == first - made.growing.first
