"""Data sets that are indexed by draw: how a resume passes by the rows of earlier batches."""

import pytest
from composer.utils import dist

from cadenza.data import EpochSampler
from cadenza.data.draws import Drawn


class Numbered(Drawn):
    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("batches", [0, 1, 4, 5])
def test_a_resume_passes_by_what_all_ranks_have_had(world, batches, monkeypatch):
    """Of 30 rows, in batches of 6 over all ranks."""
    monkeypatch.setattr(dist, "get_world_size", lambda: world)
    for rank in range(world):
        monkeypatch.setattr(dist, "get_global_rank", lambda rank=rank: rank)
        dataset = Numbered(30)
        sampler = EpochSampler(dataset, train=True, seed=4)
        sampler.set_epoch(2)
        whole = list(sampler)
        dataset.load_state_dict(Numbered(30).state_dict(6 * batches, True))
        assert list(sampler) == whole[6 // world * batches :]
        assert list(sampler) == whole, "once alone: the next epoch begins at its beginning"
        assert len(sampler) == len(whole)


def test_another_number_of_rows_is_said(capsys):
    Numbered(30).load_state_dict(Numbered(20).state_dict(6, True))
    assert capsys.readouterr().out == "the data has 30 rows, 20 at the checkpoint: another order\n"
    old = Numbered(30)
    old.load_state_dict(None)
    assert old.taken is None
