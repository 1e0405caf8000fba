"""What the first rank alone makes is the same on every rank, and so is its error."""

import tempfile

import first_rank_worker
import pytest
import torch.multiprocessing as mp

from cadenza.data.ranks import from_first_rank


def test_one_process_makes_it_itself():
    assert from_first_rank(lambda: 5) == 5
    with pytest.raises(KeyError, match="five"):
        from_first_rank(lambda: {}["five"])


@pytest.mark.slow
def test_every_rank_has_the_tokenizer_or_the_error_of_the_first():
    """The ranks' caches differ: a rank that trained by itself would have one of its own."""
    jobs = list(first_rank_worker.TEXTS)
    with tempfile.TemporaryDirectory() as folder, mp.get_context("spawn").Manager() as manager:
        found = manager.list()
        mp.spawn(first_rank_worker.worker, (f"{folder}/meeting", jobs, found), nprocs=first_rank_worker.WORLD)
        got = {(rank, name): (reads, result) for rank, name, reads, result in found}
    assert len(got) == first_rank_worker.WORLD * len(jobs)
    assert len(got[0, "text"][1]) > 50
    for name in jobs:
        assert [got[rank, name][0] for rank in range(first_rank_worker.WORLD)] == [1, 0]
        if name != "unsendable":
            assert got[0, name][1] == got[1, name][1]
    assert got[1, "data error"][1] == ("DataError", "data.source: no such file")
    assert got[1, "other error"][1] == ("OSError", "[Errno 28] No space left on device")
    assert got[0, "unsendable"][1] == ("Unsendable", "one and other")
    assert got[1, "unsendable"][1] == ("DataError", "Unsendable: one and other")
