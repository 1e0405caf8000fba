"""Streams go on behind a checkpoint, bit for bit, without tokenizing earlier documents again."""

import pytest
from composer.utils import dist
from streams import BATCH, KINDS, LENGTH, Counting, Rows, same, state_after, train_loader
from words import tokenized

from cadenza.data import DataError
from cadenza.data.progress import Place, Progress
from cadenza.data.text.datasets import packing


@pytest.fixture
def loader(monkeypatch):
    """Makes a train loader; sequences are packed by 20."""
    monkeypatch.setattr(packing, "WINDOW", 20)
    return train_loader


@pytest.mark.parametrize("kind", KINDS)
def test_at_any_batch_a_pass_goes_on_as_it_would_have(loader, kind):
    whole = loader(kind)
    first, second = list(whole), list(whole)
    assert not same(first, second)
    for taken in range(1, len(first) + 1):
        resumed = loader(kind)
        resumed.dataset.load_state_dict(state_after(loader(kind), taken))
        assert same(list(resumed), first[taken:]), taken
        assert same(list(resumed), second), taken


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker")
@pytest.mark.parametrize("kind", KINDS)
def test_processes_go_on_in_their_order(loader, kind):
    """Within a round, at its end, and where only the last process still has batches."""
    whole = loader(kind, workers=3, count=60)
    _, second, third = (list(whole) for _ in range(3))
    for taken in (2, 3, len(second) - 2):
        resumed = loader(kind, workers=3, count=60)
        resumed.dataset.load_state_dict(state_after(loader(kind, 3, 60), taken, passes=1))
        assert same(list(resumed), second[taken:]), taken
        assert same(list(resumed), third), taken


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_resumes_of_a_resume(loader, kind, workers):
    state, found = None, []
    whole = list(loader(kind, workers))
    for taken in (1, 2, 5):
        one = loader(kind, workers)
        if state:
            one.dataset.load_state_dict(state)
            assert one.dataset.state_dict(BATCH, True) == state, "before its first batch"
        given = iter(one)
        found += [next(given) for _ in range(taken - len(found))]
        state = one.dataset.state_dict(taken * BATCH, True)
        assert state["batches"] == taken
    assert same(found, whole[:5])


def test_at_the_end_of_a_pass_the_next_one_begins(loader):
    one = loader("masked")
    list(one)
    state = one.dataset.state_dict(0, True)
    assert (state["pass"], state["batches"]) == (1, 0)
    resumed = loader("masked")
    resumed.dataset.load_state_dict(state)
    assert same(list(resumed), list(one))
    assert loader("masked").dataset.state_dict(0, True)["pass"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_earlier_documents_are_not_tokenized(loader, kind, capsys):
    state = state_after(loader(kind, count=400), 60)
    place = Place(*state["ranks"][0]["places"][0])
    tokenizer = Counting()
    resumed = loader(kind, count=400, tokenizer=tokenizer)
    resumed.dataset.load_state_dict(state)
    next(iter(resumed))
    every = Rows(400).texts
    assert place.document > 10
    assert tokenizer.seen == [text for text in every[place.document :] if text]
    assert "passing by earlier documents, not tokenized: 100%" in capsys.readouterr().err


def test_a_place_of_a_window_is_within_the_copies_of_a_document(loader):
    """A document of 60 tokens gives three pieces of 63, and windows of 15 tokens behind an anchor."""
    rows = [{"text": "w " * 60}]
    state = state_after(loader("causal", batch=3, rows=rows), 2)
    assert state["ranks"] == [{"places": [[0, 6 * 15, 0, 6, ()]], "drop": 0}]


def test_a_batch_brings_no_place_to_a_model(loader):
    for kind in KINDS:
        for workers in (0, 1):
            assert "place" not in next(iter(loader(kind, workers)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"workers": 2}, "the number of loading processes"),
        ({"batch": 4}, "the batch size of a device"),
        ({"length": 18}, "data.max_seq_len"),
    ],
)
def test_other_batches_are_made_again_from_the_first(loader, change, said, capsys):
    resumed = loader("masked", **change)
    resumed.dataset.load_state_dict(state_after(loader("masked"), 4))
    assert f"data: 4 earlier batches are made again (another value of {said})\n" in capsys.readouterr().out
    assert same(list(resumed), list(loader("masked", **change))[4:])
    assert "making earlier batches again: 100%" in capsys.readouterr().err


def test_one_process_is_one_process(loader, capsys):
    """Without workers, or with one of them."""
    resumed = loader("masked", workers=1)
    resumed.dataset.load_state_dict(state_after(loader("masked"), 4))
    # A worker reads a part of its own here; draws are numbered alike.
    assert next(iter(resumed))["draw"].tolist() == [12, 13, 14]
    assert capsys.readouterr().out == ""


def test_another_number_of_devices_is_said(loader, monkeypatch, capsys):
    state = state_after(loader("masked"), 2)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    resumed = loader("masked")
    resumed.dataset.load_state_dict(state)
    assert "2 earlier batches are made again (another value of the number of dev" in capsys.readouterr().out


@pytest.mark.parametrize("state", [None, {"taken": 3, "length": 9}])
def test_a_checkpoint_that_says_nothing_is_an_error_until_told(loader, state):
    resumed = loader("masked")
    resumed.dataset.load_state_dict(state)
    with pytest.raises(DataError, match=r"doesn't say how far the stream was read; call `replay\(epoch, ba"):
        next(iter(resumed))
    resumed.dataset.replay(1, 2)
    whole = loader("masked")
    assert same(list(resumed), (list(whole) and list(whole))[2:])


def test_files_in_place_of_a_stream_go_on_where_they_are_told(loader):
    files = tokenized(["a b c"] * 9, Counting(), LENGTH)
    files.load_state_dict(state_after(loader("masked"), 2))
    assert files.taken is None


def test_fewer_documents_than_were_read_are_said(loader):
    state = state_after(loader("masked"), 8)
    resumed = loader("masked", rows=[{"text": "a b c"}] * 2)
    resumed.dataset.load_state_dict(state)
    said = r"^data.source: \d+ documents were read before the checkpoint, there are 2; resume with the same"
    with pytest.raises(DataError, match=said):
        next(iter(resumed))


def test_an_unknown_document_ends_no_resumed_run(loader):
    """Most of the tokens behind the place are unknown, but not of all that the run has read."""
    tokenizer = Counting()
    tokenizer.unk_token, tokenizer.unk_token_id = "u", 5 + len("unknown")
    rows = [{"text": "a b c"}] * 30 + [{"text": "unknown"}] * 6
    whole = loader("masked", rows=rows, tokenizer=tokenizer)
    resumed = loader("masked", rows=rows, tokenizer=tokenizer)
    resumed.dataset.load_state_dict(state_after(whole, 10))
    assert len(list(resumed)) == 2


def test_a_process_goes_back_before_the_batch_of_an_unfinished_round():
    progress = Progress([Place()] * 3)
    for process, document in ((0, 1), (1, 1), (2, 1), (0, 2), (1, 2), (0, 3)):
        progress.note(process, Place(document))
    assert progress.state() == {"places": [list(Place(n)) for n in (2, 2, 1)], "drop": 1}
    progress.note(1, Place(3))
    assert progress.state() == {"places": [list(Place(n)) for n in (2, 2, 1)], "drop": 2}
    assert progress.taken == 7


def test_a_process_that_has_read_its_part_does_not_go_back():
    """The first one ended after a batch, so that the round of the second one is its own."""
    progress = Progress([Place()] * 3)
    for process, document in ((0, 1), (1, 1), (2, 1), (1, 2)):
        progress.note(process, Place(document))
    assert progress.state() == {"places": [list(Place(1))] * 3, "drop": 1}
    progress.note(2, Place(2))
    assert progress.state() == {"places": [list(Place(n)) for n in (1, 2, 2)], "drop": 0}


def test_each_rank_goes_on_at_its_own_places(loader, monkeypatch):
    """Two ranks in one process: `all_gather_object` is handed what both have."""
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    states, whole = [], []
    monkeypatch.setattr(dist, "all_gather_object", lambda own: states.append(own) or states)
    for rank in range(2):  # each with another part of the stream
        monkeypatch.setattr(dist, "get_global_rank", lambda rank=rank: rank)
        whole.append(list(loader("masked", count=30 + rank)))
        state = state_after(loader("masked", count=30 + rank), 8)
    assert len(states) == 2
    assert states[0] != states[1]
    for rank in range(2):
        monkeypatch.setattr(dist, "get_global_rank", lambda rank=rank: rank)
        resumed = loader("masked", count=30 + rank)
        resumed.dataset.load_state_dict(state)
        assert same(list(resumed), whole[rank][8:])
